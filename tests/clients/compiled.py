"""Compiles a C client against the shared library of the onnxruntime wheel, and runs it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

source, folder, asked, answer = sys.argv[1:]
texts = json.load(open(asked))
(library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
with tempfile.TemporaryDirectory() as place:
    program, vectors = f"{place}/client", f"{place}/vectors"
    # the library's soname is not its file's name
    link = Path(place, "libonnxruntime.so.1")
    link.symlink_to(library)
    command = ["gcc", "-Wall", "-Werror", "-O1", source, "-o", program, str(library), f"-Wl,-rpath,{place}"]
    subprocess.run(command, check=True)
    run = subprocess.run(
        [program, f"{folder}/onnx/model.onnx", vectors, *texts], check=True, capture_output=True, text=True
    )
    found = np.fromfile(vectors, np.float32).reshape(len(texts), -1)
json.dump({"version": run.stdout.strip(), "vectors": found.tolist()}, open(answer, "w"))
