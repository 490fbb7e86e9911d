"""OpenVINO GenAI's TextEmbeddingPipeline, on a folder that is packed here, where its tokenizers are."""

# /// script
# dependencies = ["openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0"]
# [tool.client]
# consumer = "openvino-genai"
# folder = "openvino"
# base = true
# ///

import json
import shutil
import sys
import tempfile
from pathlib import Path

import sbertconv

source, asked, answer = sys.argv[1:]
with tempfile.TemporaryDirectory() as place:
    folder = Path(place, "packed")
    sbertconv.pack(source, folder, ["openvino-genai", "openvino-model-server"])
    import openvino_genai

    pipeline = openvino_genai.TextEmbeddingPipeline(
        str(folder),
        "CPU",
        pooling_type=openvino_genai.TextEmbeddingPipeline.PoolingType.CLS,
        normalize=False,
        INFERENCE_PRECISION_HINT="f32",  # left alone, it computes in bfloat16 where the CPU can
    )
    found = [pipeline.embed_query(text) for text in json.load(open(asked))]
    shutil.rmtree(folder)
json.dump({"version": openvino_genai.__version__.split("-")[0], "vectors": found}, open(answer, "w"))
