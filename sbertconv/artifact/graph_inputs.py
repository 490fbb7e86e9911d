"""The names of a graph's inputs: they say what the run time gives there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.artifact.text_input import MAX_LENGTH, TEXT, TEXT_PAIR

PIXELS = "pixel_values"
PATCHED = (PIXELS, "pixel_attention_mask", "spatial_shapes")  # of a graph of patches
GRIDDED = ("patch_groups", "image_grid_thw")  # of a graph of one image, of any number of tokens
TYPES = "token_type_ids"  # zeros, where a tokenizer has none
PROMPT_LENGTH = "prompt_length"
PER_TEXT = (PROMPT_LENGTH, IS_QUERY)  # one number for each text, image or sound
STRINGS = (TEXT, TEXT_PAIR, MAX_LENGTH)  # of a graph with its tokenizer inside


def input_names(section: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs of a graph of images, by the manifest's `image` entry."""
    return PATCHED if "patches" in section else GRIDDED if "grid" in section else (PIXELS,)


def media_inputs(graph: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs of a graph of images or sounds that an image or a sound becomes, by the manifest's entry of it."""
    if graph["modality"] == "image":
        return input_names(graph["image"])
    return tuple((graph.get("wave") or graph["sound"])["tensors"])


def given_inputs(graph: Mapping[str, Any], names: Collection[str]) -> tuple[str, ...]:
    """All that the run time can give a graph, by its manifest's entry and the names of its inputs."""
    if graph["modality"] != "text":
        own = media_inputs(graph)
    else:
        own = STRINGS if TEXT in names else (*dict.fromkeys((*graph["tokenizer"]["tensors"], TYPES)),)
    return (*own, *PER_TEXT)
