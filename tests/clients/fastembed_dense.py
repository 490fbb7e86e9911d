"""fastembed's TextEmbedding."""

# /// script
# dependencies = ["fastembed==0.9.1"]
# [tool.client]
# consumer = "fastembed"
# folder = "onnx"
# ///

import json
import sys
from importlib.metadata import version

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

folder, asked, answer = sys.argv[1:]
TextEmbedding.add_custom_model(
    model="converted/model",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="converted/model"),
    dim=384,
    model_file="onnx/model.onnx",
)
model = TextEmbedding("converted/model", specific_model_path=folder)
found = [vector.tolist() for vector in model.embed(json.load(open(asked)))]
json.dump({"version": version("fastembed"), "vectors": found}, open(answer, "w"))
