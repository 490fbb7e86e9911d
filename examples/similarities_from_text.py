"""A few similarities from a graph with its tokenizer inside: onnxruntime and numpy, nothing else.

Usage: similarities_from_text.py <model.onnx>
"""

import sys

import numpy as np
import onnxruntime

QUERY = "How do I bake bread at home?"
TEXTS = [
    "Mix flour, water, salt and yeast, let the dough rise, and bake it for forty minutes.",
    "The bakery around the corner opens at six in the morning.",
    "The central bank left its interest rate unchanged.",
]

session = onnxruntime.InferenceSession(sys.argv[1])
(vectors,) = session.run(["sentence_embedding"], {"text": np.array([QUERY, *TEXTS], object)})
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
print(f"\n{QUERY} (onnxruntime {onnxruntime.__version__}, no tokenizer)")
for score, text in sorted(zip(vectors[1:] @ vectors[0], TEXTS, strict=True), reverse=True):
    print(f"  {score:.4f}  {text}")
assert not {"sbertconv", "tokenizers", "torch"} & set(sys.modules)
