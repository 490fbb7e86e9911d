"""Parts of tables to workers and back: processes of this machine, or whatever answers bytes with bytes."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sbertconv.errors import SbertconvError, UnsupportedOptionError, error_text
from sbertconv.tables.embedding import BLOCK
from sbertconv.tables.reading import Part

if TYPE_CHECKING:
    import pyarrow as pa

    from sbertconv.tables.embedding import EmbedTable

TRIES = 3  # workers that may die of one block
PLACE = re.compile(r"(?:\w+://)?(?P<host>[^/\[\]:,]+):(?P<port>\d{1,5})/?")  # of a cluster; others have none
PATIENCE = 10.0  # seconds
LENGTH = struct.Struct("<Q")
DONE, FAILED = b"\0", b"\1"


class WorkerDiedError(SbertconvError):
    """A worker ended in the middle of a part."""


class Worker(Protocol):
    """What embeds tables somewhere: Arrow's stream format in and out."""

    def __call__(self, table: bytes) -> bytes:
        """Embed one; raises WorkerDiedError, or the error of the model."""

    def close(self) -> None:
        """Let it go."""


@contextlib.contextmanager
def reaching(kind: str, address: str | None) -> Iterator[None]:
    """In here a cluster is connected to. An address with a port is tried first: a cluster's library may wait for it for
    minutes.

    Args:
        kind: of the cluster, for messages.
        address: that the library takes; None: its own choice.

    Raises:
        UnsupportedOptionError: if there is no cluster.
    """
    found = PLACE.fullmatch(address or "")
    try:
        if found:
            socket.create_connection((found["host"], int(found["port"])), PATIENCE).close()
        yield
    except Exception as error:  # of many kinds: Py4J's, gRPC's
        raise UnsupportedOptionError(
            f"{kind}: no cluster at {address or 'the place of its settings'}: {error_text(error)}\nCheck the address."
        ) from error


def to_bytes(table: pa.Table) -> bytes:
    """A table in Arrow's stream format."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(content: bytes) -> pa.Table:
    """A table from Arrow's stream format."""
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all()


def answer_to(embed: EmbedTable, table: bytes) -> tuple[bytes, bytes]:
    """A worker's answer to a table: DONE and that with its vectors; or FAILED and a pickled error of this package."""
    try:
        return DONE, to_bytes(embed(from_bytes(table)))
    except Exception as error:
        known = error if isinstance(error, SbertconvError) else SbertconvError(error_text(error, 3))
        return FAILED, pickle.dumps(known)


def table_in(answer: tuple[bytes, bytes]) -> bytes:
    """The table of a worker's answer.

    Raises:
        SbertconvError: if it is an error.
    """
    state, content = answer
    if state == FAILED:
        raise pickle.loads(content)
    return content


class Process:
    """A process that opens the folder itself. It ends when this one does, however that ends."""

    def __init__(self, embed: EmbedTable) -> None:
        package = Path(__file__).parent.parent.parent
        paths = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sbertconv.tables.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            process_group=0 if os.name == "posix" else None,  # an interrupt at the terminal is for this process alone
        )
        self.unsaid = [pickle.dumps(embed)]  # what is sent before the first table

    def __call__(self, table: bytes) -> bytes:
        """Embed one."""
        try:
            for content in (*self.unsaid, table):
                send(self.process.stdin, content)
            self.unsaid.clear()
            answer = receive(self.process.stdout), receive(self.process.stdout)
        except (OSError, EOFError) as error:
            code = self.process.wait()
            raise WorkerDiedError(f"A worker ended with {code}.\nCheck the memory: each holds the model.") from error
        return table_in(answer)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with_no_error(pipe.close)  # type: ignore[union-attr]


def with_no_error(close: Callable[[], None]) -> None:
    try:
        close()
    except OSError:  # what was still buffered for a process that is gone
        return


def send(pipe: Any, content: bytes) -> None:
    pipe.write(LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def receive(pipe: Any) -> bytes:
    """The next message.

    Raises:
        EOFError: if the other side is gone.
    """
    head = pipe.read(LENGTH.size)
    content: bytes = pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    if len(head) < LENGTH.size or len(content) < LENGTH.unpack(head)[0]:
        raise EOFError
    return content


def serve() -> None:
    """A worker: the callable first, then tables, until there are no more. Libraries print to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    embed = pickle.loads(receive(questions))
    while True:
        try:
            table = receive(questions)
        except EOFError:
            return
        try:
            for content in answer_to(embed, table):
                send(answers, content)
        except BrokenPipeError:  # whoever asked is gone
            with_no_error(answers.close)
            return


class Gathered:
    """A part whose blocks are embedded by whoever is free; they are joined in order."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.blocks = [part.table.slice(start, BLOCK) for start in range(0, max(len(part.table), 1), BLOCK)]
        self._found: list[pa.Table | None] = [None] * len(self.blocks)
        self._lock = threading.Lock()

    def add(self, number: int, table: pa.Table) -> pa.Table | None:
        """The embedded table of one block; gives that of the part with the last of them."""
        import pyarrow as pa

        with self._lock:
            self._found[number] = table
            return None if any(one is None for one in self._found) else pa.concat_tables(self._found)


def numbered_blocks(parts: Iterator[Part]) -> Iterator[tuple[Gathered, int]]:
    """The blocks of all parts, in order."""
    for part in parts:
        gathered = Gathered(part)
        for number in range(len(gathered.blocks)):
            yield gathered, number


def pooled(parts: Iterator[Part], open_worker: Callable[[], Worker], count: int) -> Iterator[tuple[Part, pa.Table]]:
    """Each part with its embedded table, as they get done. Workers take a block at a time, so that all of them end at
    about the same time. A block of a worker that dies is done again by another.

    Raises:
        WorkerDiedError: if workers die of one block again and again.
        SbertconvError: what reading or embedding raises.
    """
    reading, answers, stopped = threading.Lock(), queue.Queue[Any](count), threading.Event()
    open_workers: list[Worker] = []
    blocks = numbered_blocks(parts)

    def opened() -> Worker:
        open_workers.append(open_worker())
        return open_workers[-1]

    def work() -> None:
        worker: Worker | None = None
        try:
            while not stopped.is_set():
                with reading:
                    gathered, number = next(blocks, (None, 0))
                if gathered is None:
                    break
                content = to_bytes(gathered.blocks[number])
                for left in reversed(range(TRIES)):
                    worker = worker or opened()
                    try:
                        whole = gathered.add(number, from_bytes(worker(content)))
                        break
                    except WorkerDiedError:
                        worker.close()
                        worker = None
                        if not left or stopped.is_set():
                            raise
                if whole is not None:
                    answers.put((gathered.part, whole))
        except BaseException as error:
            answers.put(error)
        finally:
            if worker is not None:
                worker.close()
            answers.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    running = count
    try:
        while running:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                running -= 1
            else:
                yield answer
    finally:
        stopped.set()
        for worker in open_workers:  # who is in the middle of a part, too
            worker.close()
        while any(thread.is_alive() for thread in threads):  # nobody waits for room among the answers
            with_no_item(answers)
            for thread in threads:
                thread.join(0.05)


def with_no_item(answers: queue.Queue[Any]) -> None:
    while True:
        try:
            answers.get_nowait()
        except queue.Empty:
            return


if __name__ == "__main__":
    serve()
