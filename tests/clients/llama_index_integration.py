"""sbertconv.integrations.llama_index, with the real package, and its tests."""

# /// script
# dependencies = ["llama-index-core==0.14.25"]
# [tool.client]
# folder = "onnx"
# base = true
# ///

import json
import os
import subprocess
import sys
from importlib.metadata import version

from sbertconv.integrations.llama_index import SbertconvEmbedding

folder, asked, answer = sys.argv[1:]
tests = os.path.join(os.environ["CLIENTS_ROOT"], "tests/test_integrations.py")
subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", "llama_index"], check=True)
texts = json.load(open(asked))
found = SbertconvEmbedding(folder).get_text_embedding_batch(texts)
json.dump({"version": version("llama-index-core"), "vectors": found}, open(answer, "w"))
