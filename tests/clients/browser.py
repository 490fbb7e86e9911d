"""Opens a page in headless Chromium: a small server has the packages, the folder and the texts, and takes the answer.

Nothing else can be reached from the page: every other host is mapped to nowhere.
"""

import json
import queue
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

page, folder, asked, answer = map(Path, sys.argv[1:])
PLACES = {"model": folder, "texts.json": asked}  # the first part of an address -> where it is; else beside the page
PATIENCE = 600  # seconds


class Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def __init__(self, *arguments, answers, **options):
        self.answers = answers
        super().__init__(*arguments, **options)

    def translate_path(self, path):
        first, *rest = path.split("?")[0].lstrip("/").split("/")
        return str(PLACES.get(first, page.parent / first).joinpath(*rest))

    def do_POST(self):
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        return None


answers = queue.Queue()
with (
    ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, answers=answers)) as server,
    tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
    open(f"{place}/log", "w+b") as log,
):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place}/profile", alone]
    address = f"http://127.0.0.1:{server.server_address[1]}/{page.name}"
    browser = subprocess.Popen(["chromium", *options, address], stdout=log, stderr=log)
    try:
        found = answers.get(timeout=PATIENCE)
    except queue.Empty:
        log.seek(0)
        found = log.read()[-2000:].decode(errors="replace")
    finally:
        browser.terminate()
        browser.wait(timeout=30)
        server.shutdown()
        thread.join()
if isinstance(found, str):
    sys.exit(found)
answer.write_text(json.dumps(found))
