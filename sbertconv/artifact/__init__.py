"""Stage 5, publish: the converted folder, its manifest, and the facts of every class of models."""
