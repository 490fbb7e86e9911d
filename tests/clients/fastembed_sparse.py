"""fastembed's SparseTextEmbedding."""

# /// script
# dependencies = ["fastembed==0.9.1"]
# [tool.client]
# consumer = "fastembed"
# folder = "splade"
# ///

import json
import sys
from importlib.metadata import version
from pathlib import Path

from fastembed import SparseTextEmbedding

folder, asked, answer = sys.argv[1:]
size = json.loads(Path(folder, "sbertconv.json").read_text())["embedding_dimension"]
model = SparseTextEmbedding("prithivida/Splade_PP_en_v1", specific_model_path=folder)
found = []
for sparse in model.embed(json.load(open(asked))):
    row = [0.0] * size
    for index, value in zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True):
        row[index] = value
    found.append(row)
json.dump({"version": version("fastembed"), "vectors": found}, open(answer, "w"))
