"""sentence-transformers' own backend="onnx", on the older stack that it needs."""

# /// script
# dependencies = ["optimum-onnx==0.1.0", "sentence-transformers<6", "transformers<5"]
# [tool.client]
# consumer = "sentence-transformers"
# folder = "onnx"
# base = true
# ///

import json
import os
import sys
from importlib.metadata import version

os.environ["USE_TF"] = "0"  # this transformers does not know the Keras of the base

from sentence_transformers import SentenceTransformer

folder, asked, answer = sys.argv[1:]
model = SentenceTransformer(folder, backend="onnx", device="cpu", model_kwargs={"file_name": "onnx/model.onnx"})
found = model.encode(json.load(open(asked)))
json.dump({"version": version("sentence-transformers"), "vectors": found.tolist()}, open(answer, "w"))
