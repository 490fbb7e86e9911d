"""optimum's ORTModelForFeatureExtraction, on the older stack that it needs."""

# /// script
# dependencies = ["optimum-onnx==0.1.0", "sentence-transformers<6", "transformers<5"]
# [tool.client]
# consumer = "sentence-transformers"
# folder = "onnx"
# base = true
# ///

import json
import sys
from importlib.metadata import version

import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer

folder, asked, answer = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = ORTModelForFeatureExtraction.from_pretrained(folder, subfolder="onnx", file_name="model.onnx")
given = tokenizer(json.load(open(asked)), padding=True, truncation=True, return_tensors="pt")
tokens, mask = model(**given).last_hidden_state, given["attention_mask"].unsqueeze(-1).float()
found = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)
json.dump({"version": version("optimum-onnx"), "vectors": found.tolist()}, open(answer, "w"))
