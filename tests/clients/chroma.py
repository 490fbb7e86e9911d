"""Chroma's default embedding function over a folder of its own, in a collection."""

# /// script
# dependencies = ["chromadb==1.5.9"]
# [tool.client]
# consumer = "chroma"
# folder = "onnx"
# ///

import json
import sys
from importlib.metadata import version
from pathlib import Path

import chromadb
from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

folder, asked, answer = sys.argv[1:]


class Converted(ONNXMiniLM_L6_V2):
    DOWNLOAD_PATH = Path(folder, "chroma")


texts = json.load(open(asked))
client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
collection = client.create_collection("texts", embedding_function=Converted())
names = [str(index) for index in range(len(texts))]
collection.add(ids=names, documents=texts)
got = collection.get(ids=names, include=["embeddings"])
rows = dict(zip(got["ids"], got["embeddings"].tolist(), strict=True))
json.dump({"version": version("chromadb"), "vectors": [rows[name] for name in names]}, open(answer, "w"))
