"""sbertconv.integrations.langchain, with the real package, and its tests."""

# /// script
# dependencies = ["langchain-core==1.8.3"]
# [tool.client]
# folder = "onnx"
# base = true
# ///

import json
import os
import subprocess
import sys
from importlib.metadata import version

from sbertconv.integrations.langchain import SbertconvEmbeddings

folder, asked, answer = sys.argv[1:]
tests = os.path.join(os.environ["CLIENTS_ROOT"], "tests/test_integrations.py")
subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", "langchain"], check=True)
texts = json.load(open(asked))
found = SbertconvEmbeddings(folder).embed_documents(texts)
json.dump({"version": version("langchain-core"), "vectors": found}, open(answer, "w"))
