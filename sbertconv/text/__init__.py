"""The tokenizer inside the graph: text in, token ids out, exactly those of the model's own tokenizer.

A tokenizer's JSON is taken apart into its components, and each is compiled to tables of integers (`tokenizer.py`). What
runs on the tables is written once, in some thirty operations on vectors (`operations.py`); an emitter says what these
are in ONNX, TensorFlow or numpy. All characters of a batch are one vector with a pseudo character after each text, so
nothing is padded until the end, and a text of any length costs what its characters cost. Characters are known by asking
the tokenizer's own components about every code point (`characters.py`), so no part of Unicode is written down here.
`proof.py` compares a built graph with the tokenizer, token by token.

This package knows nothing of the rest of sbertconv but its errors, its corpus and how a tokenizer is read.
"""

from sbertconv.artifact.text_input import TokenizerSettings
from sbertconv.text.proof import Proof, prove
from sbertconv.text.tokenizer import GraphTokenizer, compile_tokenizer

__all__ = ["GraphTokenizer", "Proof", "TokenizerSettings", "compile_tokenizer", "prove"]
