"""Lines of a model's own code: where a trace fails, takes something for granted, or is."""

from __future__ import annotations

import inspect
import linecache
import os
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import FrameType

OWN = f"{Path(__file__).parent.parent}{os.sep}"
TRACERS = ("torch", "sbertconv", "onnxscript", "onnx_ir", "sentence_transformers")  # where no line is the model's own


def place_of(error: BaseException) -> str:
    """The last line of the model's own code that an error of a tracer went through, or its notes on lines before, in
    brackets; empty without either.
    """
    frames: list[traceback.FrameSummary] = []
    notes: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        frames += traceback.extract_tb(seen.__traceback__)
        notes += getattr(seen, "__notes__", [])
        seen = seen.__cause__
    models = [frame for frame in frames if is_of_a_model(frame.filename)]
    found = line_of(models[-1].filename, models[-1].lineno or 0) if models else "; ".join(notes)
    return f" [{found}]" if found else ""


@cache
def is_of_a_model(file: str) -> bool:
    """Whether code is neither a tracer's, nor this package's, nor Python's own."""
    parts = Path(file).parts
    own = "site-packages" in parts or not Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    return own and not set(TRACERS) & set(parts) and not file.startswith("<")


def line_of(file: str, number: int) -> str:
    """A line of code with the name of its file, without the folders of this machine."""
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}"


def line_running() -> str | None:
    """The innermost line of a model's own code that is running, if there is one."""
    frame = _frame_of_model()
    return None if frame is None else line_of(frame.f_code.co_filename, frame.f_lineno)


def is_model_running() -> bool:
    """Whether a model's own code is running."""
    return _frame_of_model() is not None


def _frame_of_model() -> FrameType | None:
    """The innermost frame of a model's own code. The code that asked this package for something is none."""
    frame = inspect.currentframe()
    while frame is not None and _is_own(frame.f_code.co_filename):
        frame = frame.f_back
    while frame is not None and not is_of_a_model(frame.f_code.co_filename):
        frame = None if _is_own(frame.f_code.co_filename) else frame.f_back
    return frame


def _is_own(file: str) -> bool:
    return file.startswith(OWN)
