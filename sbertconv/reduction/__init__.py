"""A model -> a smaller one that sentence-transformers loads: fewer tokens, fewer layers, or token vectors alone."""
