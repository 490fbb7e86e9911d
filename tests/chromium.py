"""Chromium without a window, asked through its DevTools protocol over a pipe: open a page, run JavaScript, look."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60  # seconds for one answer


class Page:
    """One tab. Messages are JSON that ends in a zero byte; answers carry the number of what was asked."""

    def __init__(self, asks: int, answers: int) -> None:
        self._asks, self._answers, self._numbers, self._read = asks, answers, itertools.count(1), b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a method of the protocol."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if hasattr(self, "_session") else {}
        message = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._asks, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            while b"\0" in self._read:
                one, _, self._read = self._read.partition(b"\0")
                answer = json.loads(one)
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return answer["result"]
            if select.select([self._answers], [], [], 1)[0]:
                self._read += os.read(self._answers, 2**20)
        raise TimeoutError(method)

    def run(self, code: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression of the page is true."""
        code = f"new Promise(done => {{ const look = () => ({condition}) ? done(1) : setTimeout(look, 50); look(); }})"
        self.run(code)

    def open(self, address: str, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a page as a screen of this width shows it to a reader who prefers light or dark."""
        narrow = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({address!r}) && document.readyState === 'complete'")

    def picture(self, file: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"] if whole else {}
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        file.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile that reaches this machine alone."""
    asks_read, asks = os.pipe()
    answers, answers_write = os.pipe()

    def places() -> None:  # where the protocol is: it reads 3 and writes 4
        source, target = os.dup(asks_read), os.dup(answers_write)
        os.dup2(source, 3)
        os.dup2(target, 4)

    assert PROGRAM
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
        f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]  # fmt: skip
    log = (profile.parent / "chromium.log").open("w+b")
    with subprocess.Popen(
        [PROGRAM, *options], stdout=log, stderr=log, preexec_fn=places, close_fds=False
    ) as browser:  # places need other descriptors open
        try:
            yield Page(asks, answers)
        finally:
            browser.terminate()
            browser.wait(timeout=30)
            for end in (asks_read, asks, answers, answers_write):
                os.close(end)
            log.close()
