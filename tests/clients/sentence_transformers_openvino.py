"""sentence-transformers' own backend="openvino", on the older stack that it needs."""

# /// script
# dependencies = ["optimum-intel[openvino]==2.2.0", "sentence-transformers<6", "transformers<5"]
# [tool.client]
# consumer = "sentence-transformers-openvino"
# folder = "openvino"
# base = true
# ///

import json
import os
import sys
from importlib.metadata import version

os.environ["USE_TF"] = "0"  # this transformers does not know the Keras of the base

from sentence_transformers import SentenceTransformer

folder, asked, answer = sys.argv[1:]
options = {"file_name": "openvino/openvino_model.xml", "ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
model = SentenceTransformer(folder, backend="openvino", device="cpu", model_kwargs=options)
found = model.encode(json.load(open(asked)))
json.dump({"version": version("sentence-transformers"), "vectors": found.tolist()}, open(answer, "w"))
