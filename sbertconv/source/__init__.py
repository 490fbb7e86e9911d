"""Stage 1, load: a model id, folder or live object -> the model and its description."""
