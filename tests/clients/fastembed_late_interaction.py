"""fastembed's LateInteractionTextEmbedding, which has no custom models: under the name of one that it knows."""

# /// script
# dependencies = ["fastembed==0.9.1"]
# [tool.client]
# consumer = "fastembed"
# folder = "colbert"
# over_limit = false
# ///

import json
import sys
from importlib.metadata import version

import numpy as np
from fastembed import LateInteractionTextEmbedding

folder, asked, answer = sys.argv[1:]
model = LateInteractionTextEmbedding("colbert-ir/colbertv2.0", specific_model_path=f"{folder}/fastembed")
texts = json.load(open(asked))
queries, documents = list(model.query_embed(texts)), list(model.embed(texts))
found = [np.concatenate([a.sum(0), b.sum(0)]).tolist() for a, b in zip(queries, documents, strict=True)]
json.dump({"version": version("fastembed"), "vectors": found}, open(answer, "w"))
