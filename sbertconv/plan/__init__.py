"""Stage 2, plan: the converter of each module, the context of a conversion, tokenizers and outputs described."""
