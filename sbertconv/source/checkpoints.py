"""A checkpoint's config.json -> the class of models that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLASSIFIER_HEAD = "ForSequenceClassification"
OWN_MARKS = ("sentence_transformers", "sbert_ce_default_activation_function")  # what CrossEncoder writes to config.json


def architecture(config: Mapping[str, Any]) -> str:
    """The class that a config.json names, or "" where it names none."""
    return str((config.get("architectures") or [""])[0])


def continues_texts(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is a causal language model with its head."""
    return architecture(config).endswith("ForCausalLM")


def masks_words(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has a head for masked words."""
    return architecture(config).endswith("ForMaskedLM")


def classifies(config: Mapping[str, Any]) -> bool:
    return architecture(config).endswith(CLASSIFIER_HEAD)


def scores_pairs(config: Mapping[str, Any]) -> bool:
    """One score, or written by CrossEncoder: transformers itself knows no difference to a classifier of texts."""
    return classifies(config) and (_label_count(config) == 1 or any(config.get(mark) for mark in OWN_MARKS))


def _label_count(config: Mapping[str, Any]) -> int:
    """Transformers leaves the labels out of config.json where there are two, and reads null so."""
    count = config.get("num_labels")
    return len(config.get("id2label") or ()) or (2 if count is None else int(count))


def stanford_colbert(config: Mapping[str, Any]) -> bool:
    """What Stanford's ColBERT writes; see `MultiVectorEncoder._get_model_type`."""
    return "HF_ColBERT" in (config.get("architectures") or [])
