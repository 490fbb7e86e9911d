"""fastembed's TextCrossEncoder."""

# /// script
# dependencies = ["fastembed==0.9.1"]
# [tool.client]
# consumer = "fastembed"
# folder = "reranker"
# ///

import json
import sys
from importlib.metadata import version

from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder

folder, asked, answer = sys.argv[1:]
TextCrossEncoder.add_custom_model(
    model="converted/reranker", sources=ModelSource(hf="converted/reranker"), model_file="onnx/model.onnx"
)
model, texts = TextCrossEncoder("converted/reranker", specific_model_path=folder), json.load(open(asked))
found = [[score] for score in model.rerank(texts[4], texts)]
json.dump({"version": version("fastembed"), "vectors": found}, open(answer, "w"))
