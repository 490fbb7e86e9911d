"""A converted folder -> answers, with numpy, tokenizers and the engine of its format; no torch."""
