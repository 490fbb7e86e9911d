"""The chain of modules that the library builds around a checkpoint without modules.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sbertconv.errors import SourceError
from sbertconv.source.chain import ModuleSpec
from sbertconv.source.checkpoints import continues_texts, masks_words, stanford_colbert

Chain = tuple[tuple[ModuleSpec, ...], tuple[str, ...]]
INPUT = ModuleSpec("0", "sentence_transformers.base.modules.transformer.Transformer", "")
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
TOKEN_MODULES = (  # what MultiVectorEncoder puts behind the Transformer and the Dense of models saved by others
    ModuleSpec("2", "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask", ""),
    ModuleSpec("3", "sentence_transformers.base.modules.normalize.Normalize", ""),
)
BARE = "No modules.json: a plain transformers checkpoint"
MASKED = (
    "Its head for masked words is not used. If it was trained as SPLADE, pass model_class='SparseEncoder', or a live "
    "one."
)


def bare_embedder(config: Mapping[str, Any]) -> Chain:
    """A transformers checkpoint: the chain that SentenceTransformer builds around it, said aloud."""
    mode = "lasttoken" if continues_texts(config) and config.get("is_causal", True) else "mean"
    specs = (INPUT, ModuleSpec("1", POOLING, "", {"pooling_mode": mode}))
    notes = (f"{BARE}, {mode} pooling is assumed as in encode().",)
    return specs, notes + ((MASKED,) if masks_words(config) else ())


def bare_sparse_encoder(config: Mapping[str, Any]) -> Chain:
    """A checkpoint that is said to be a SparseEncoder, with nothing about its modules.

    Raises:
        SourceError: if it has no head for masked words, without which the library adds modules with random weights.
    """
    if not masks_words(config):
        raise SourceError(
            f"{BARE} of a SparseEncoder without a head for masked words: a SparseAutoEncoder with random weights "
            "would be added.\nGet a complete copy of the model."
        )
    pooling = "sentence_transformers.sparse_encoder.modules.SpladePooling"
    specs = (
        replace(INPUT, settings={"transformer_task": "fill-mask"}),
        ModuleSpec("1", pooling, "", {"pooling_strategy": "max", "activation_function": "relu"}),
    )
    return specs, (f"{BARE}, max pooling with relu is assumed as in encode().",)


def bare_reranker(config: Mapping[str, Any]) -> Chain:
    """A checkpoint whose head gives one score, or that CrossEncoder wrote, or a causal language model."""
    note = f"{BARE} that scores pairs of texts: converted as a CrossEncoder"
    if continues_texts(config):
        return (INPUT, ModuleSpec("1", SCORE, "")), (f"{note}, by the logit of yes less that of no.",)
    return (INPUT,), (f"{note}.",)


def bare_late_interaction(config: Mapping[str, Any]) -> Chain:
    """A checkpoint of Stanford's ColBERT: its projection lies beside the weights of the transformer.

    Raises:
        SourceError: for any other, for which the library makes up a projection.
    """
    if not stanford_colbert(config):
        raise SourceError(
            f"{BARE} that is not of Stanford's ColBERT: a projection with random weights would be added.\n"
            "Pass the folder that MultiVectorEncoder.save_pretrained wrote once it was trained."
        )
    specs = (INPUT, ModuleSpec("1", "sentence_transformers.base.modules.dense.Dense", ""), *TOKEN_MODULES)
    return specs, (f"{BARE} of Stanford's ColBERT: converted as MultiVectorEncoder reads it.",)


def bare_classifier(config: Mapping[str, Any]) -> Chain:
    """A checkpoint whose head gives several labels, with nothing in it about pairs."""
    return (INPUT,), (
        f"{BARE} with several labels: converted as a classifier of texts, as in transformers' text-classification "
        "pipeline. Pass model_class='CrossEncoder' if it is one of pairs.",
    )
