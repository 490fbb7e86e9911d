"""LiteRT's own interpreter on the files of fixed shapes."""

# /// script
# dependencies = ["ai-edge-litert==2.3.0", "tokenizers>=0.22"]
# [tool.client]
# consumer = "litert"
# folder = "litert"
# ///

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

folder, asked, answer = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
runners = {
    int(file.stem.rpartition("x")[2]): Interpreter(str(file)).get_signature_runner()
    for file in Path(folder, "litert").glob("model_1x*.tflite")
}
found = []
for text in json.load(open(asked)):
    tokenizer.no_padding()
    length = min(size for size in runners if size >= len(tokenizer.encode(text)))
    tokenizer.enable_padding(length=length)
    row = tokenizer.encode(text)
    fed = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
    wanted = runners[length].get_input_details()
    answered = runners[length](**{name: np.array([fed[name]], np.int32) for name in wanted})
    found.append(answered["sentence_embedding"][0].tolist())
json.dump({"version": version("ai-edge-litert"), "vectors": found}, open(answer, "w"))
