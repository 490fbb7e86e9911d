"""sbertconv.integrations.haystack, with the real package, and its tests."""

# /// script
# dependencies = ["haystack-ai==3.4.1"]
# [tool.client]
# folder = "onnx"
# base = true
# ///

import json
import os
import subprocess
import sys
from importlib.metadata import version

from haystack import Document

from sbertconv.integrations.haystack import SbertconvDocumentEmbedder

folder, asked, answer = sys.argv[1:]
tests = os.path.join(os.environ["CLIENTS_ROOT"], "tests/test_integrations.py")
command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", tests, "-k", "haystack"]
subprocess.run(command, check=True)
documents = SbertconvDocumentEmbedder(folder).run([Document(content=text) for text in json.load(open(asked))])
found = [document.embedding for document in documents["documents"]]
json.dump({"version": version("haystack-ai"), "vectors": found}, open(answer, "w"))
