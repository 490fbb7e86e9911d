"""What an image processor does to an image before the graph, written down for the run time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from sbertconv.artifact.graph_inputs import GRIDDED, PIXELS, input_names
from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.manifest import CHANNELS, ImageSection, problems_of_image
from sbertconv.corpus.texts import random_images
from sbertconv.errors import SbertconvError, UnsupportedOptionError, error_text
from sbertconv.runtime.images import SETTINGS as IMAGE_SETTINGS
from sbertconv.runtime.images import image_tensors

TRANSFORMER_CONFIG = "sentence_bert_config.json"
WARPED = 384  # pixels: from here on ConvNeXt's image processor crops nothing
AREAS = ("min_pixels", "max_pixels")  # other names of `size`, for processors that make tokens of any number
# Between pixel values of both sides, most of them below 3: rounding of float32
CLOSE = 1e-4
AXES = ("images", "channels", "height", "width")
PATCH_AXES = ("images", "patches", "numbers")
ROW = ("images", "tokens")  # of what is the same for every image


def describe_image(module: Any, prompt: str | None = None) -> dict[str, Any]:
    """The settings of the image processor of a module, and the tensors that the library gives it beside the pixels.

    Args:
        module: the first of a route.
        prompt: the model's default one, which is a message before the image where the library sends messages.

    Returns:
        The manifest's `image` entry.

    Raises:
        UnsupportedOptionError: see `_settings` and `_tokens`.
    """
    takes_messages = "message" in getattr(module, "modality_config", ())
    before = prompt if takes_messages else None
    section = _settings(module, before)
    if not hasattr(module, "preprocess"):
        return section
    tokens = _tokens(module, section, before)
    return {**section, **({"tokens": tokens} if tokens else {}), **({"prompt": prompt} if takes_messages else {})}


def _tokens(module: Any, section: Mapping[str, Any], prompt: str | None) -> dict[str, list[int]]:
    """The tensors that the library gives a model with every image alike, such as the ids of an instruction and of the
    places that an image takes among them.

    Raises:
        UnsupportedOptionError: if there are some that differ from image to image, or its pixel values are others than
            the settings say.
    """
    given = [_given(module, image, prompt) for image in random_images()]
    shape = list(given[0][PIXELS].shape) if PIXELS in given[0] else []
    if "grid" in section:
        given = [_in_groups(one, section["grid"]) for one in given]
    first = given[0]
    unlike = [name for name in first if any(not torch.equal(one[name], first[name]) for one in given)]
    names = input_names(section)
    strange = [name for name in first if name not in names and (name in unlike or first[name].ndim > len(ROW))]
    axes = AXES if names == (PIXELS,) else PATCH_AXES
    if strange or len(shape) not in (len(axes), len(axes) - (names == GRIDDED)):  # of one image without that axis too
        raise UnsupportedOptionError(
            f"{type(module.processor).__name__} gives {PIXELS} {shape or 'nowhere'}"
            f"{' and, for each image, ' * bool(strange)}{', '.join(strange)} "
            f"(have: {PIXELS} [{', '.join(AXES)}], and tensors [{', '.join(ROW)}] that are the same for every image).\n"
            "Convert the text tower alone."
        )
    for image, one in zip(random_images(), given, strict=True):
        ours = image_tensors([image], cast("ImageSection", section))
        if not all(_alike(ours[name], one.get(name)) for name in names):
            raise UnsupportedOptionError(
                f"{type(module.processor).__name__} makes other pixel values of an image of {image.shape[1]} x "
                f"{image.shape[0]} pixels than its settings say.\nConvert the text tower alone."
            )
    # One of a single axis is a count for the library itself
    return {name: tensor[0].tolist() for name, tensor in first.items() if name not in names and tensor.ndim > 1}


def _in_groups(given: dict[str, torch.Tensor], grid: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """The library's tensors of one image of any number of tokens, as the run time has them: the pixels by tokens, and
    of the ids and masks one in the place of all tokens of the image, where these are alike.
    """
    pixels, place = given[PIXELS], grid["place"]
    if pixels.ndim not in (len(PATCH_AXES), len(PATCH_AXES) - 1):
        return given
    groups = pixels.reshape(-1, grid["merge"] ** 2, pixels.shape[-1])
    found = {GRIDDED[0]: groups}
    for name, tensor in given.items():
        if name not in (PIXELS, *GRIDDED) and tensor.ndim == len(ROW):
            inside = tensor[0, place : place + len(groups)]
            alike = len(inside) == len(groups) and bool((inside == inside[0]).all())
            ends = (tensor[:, : place + 1], tensor[:, place + len(groups) :])
            found[name] = torch.cat(ends, dim=1) if alike else tensor
        elif name != PIXELS:
            found[name] = tensor
    return found


def _grid(module: Any, config: Mapping[str, Any], prompt: str | None) -> dict[str, int]:
    """How the library makes tokens of an image, and where they begin among the ids."""
    given, token = _given(module, random_images()[0], prompt), getattr(module.processor, "image_token_id", None)
    places = (given["input_ids"][0] == token).nonzero().flatten().tolist() if "input_ids" in given else []
    if not places:
        raise UnsupportedOptionError("an image that becomes patches of any number, and no tokens")
    size = config["size"]
    return {
        "size": config["patch_size"],
        "merge": config["merge_size"],
        "frames": config["temporal_patch_size"],
        "least": size["shortest_edge"],
        "most": size["longest_edge"],
        "place": places[0],
        "longest": module.max_seq_length,
    }


def _alike(ours: np.ndarray, theirs: torch.Tensor | None) -> bool:
    """Whether two tensors are the same up to rounding."""
    same = theirs is not None and ours.shape == tuple(theirs.shape)
    return same and np.allclose(ours, np.asarray(theirs), rtol=CLOSE, atol=CLOSE)


def _patches(module: Any) -> dict[str, int]:
    """The edge of the patches that the library cuts an image into, and how many it fills an image up to."""
    shape = _given(module, random_images()[0], None)[PIXELS].shape
    if len(shape) != len(PATCH_AXES):
        raise UnsupportedOptionError(f"{PIXELS} {list(shape)} (have: [{', '.join(PATCH_AXES)}]).")
    return {"size": math.isqrt(shape[2] // CHANNELS), "most": shape[1]}


def _given(module: Any, image: np.ndarray, prompt: str | None) -> dict[str, torch.Tensor]:
    """The tensors that the library makes of one image."""
    try:
        found = module.preprocess([image], prompt=prompt)
    except SbertconvError:
        raise
    except Exception as error:  # of many kinds: each processor checks in its own way what it is given
        raise UnsupportedOptionError(
            f"{type(module.processor).__name__} takes no image alone: {error_text(error)}\n"
            "Convert the text tower alone."
        ) from error
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}


def _settings(module: Any, prompt: str | None) -> dict[str, Any]:
    """The settings of the image processor of a module, which the library sends a prompt before an image, or none.

    Raises:
        UnsupportedOptionError: if it does anything else to an image than is known there, or has settings that no
            folder can have.
    """
    processor: Any = getattr(module, "processor", None)
    processor = getattr(processor, "image_processor", processor)
    processor = _called_with(processor, getattr(module, "processing_kwargs", None) or {})
    config = processor.to_dict() if hasattr(processor, "to_dict") else {}
    unknown = [key for key, value in config.items() if key.startswith("do_") and value and key not in IMAGE_SETTINGS]
    if unknown or not config:
        raise UnsupportedOptionError(
            f"image processor {type(processor).__name__} does {', '.join(unknown) or 'unknown things'} "
            f"(have: {', '.join(key for key in IMAGE_SETTINGS if key.startswith('do_'))}).\n"
            "Convert the text tower alone."
        )
    try:
        config = {**config, **_part_of_a_larger_one(config)}
        section = {key: config.get(key) for key in IMAGE_SETTINGS}
        if "max_num_patches" in config:
            section["patches"] = _patches(module)
        if {"merge_size", "temporal_patch_size"} <= config.keys():
            section |= {"grid": _grid(module, config, prompt), "size": None}
        section["resample"] = None if section["resample"] is None else int(section["resample"])
        section = parse_json(json.dumps(section), "the image processor", dict)  # it has tuples
        problems = problems_of_image(section)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        problems = [error_text(error)]
    if problems:
        raise UnsupportedOptionError(
            f"image processor {type(processor).__name__}: {'; '.join(problems)}.\n"
            "Mend preprocessor_config.json, or convert the text tower alone."
        )
    return section


def _called_with(processor: Any, kwargs: Mapping[str, Mapping[str, Any]]) -> Any:
    """The image processor with the settings that a module calls it with.

    Raises:
        UnsupportedOptionError: for others than are known there.
    """
    own, common = kwargs.get("image", {}), kwargs.get("common", {})
    given = {**own, **{name: value for name, value in common.items() if name in IMAGE_SETTINGS}}
    if unknown := [name for name in given if name not in (*IMAGE_SETTINGS, *AREAS)]:
        raise UnsupportedOptionError(
            f"processing_kwargs: {', '.join(unknown)} is not supported for images (have: "
            f"{', '.join((*IMAGE_SETTINGS, *AREAS))}).\n"
            "Convert the text tower alone."
        )
    try:
        return type(processor)(**{**processor.to_dict(), **given}) if given else processor
    except Exception as error:
        raise UnsupportedOptionError(f"processing_kwargs: {error_text(error)}\nMend {TRANSFORMER_CONFIG}.") from error


def _part_of_a_larger_one(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resizing of ConvNeXt's image processor, which has `crop_pct`: small images are the middle of a larger one,
    large ones are warped.
    """
    edge, part = (config.get("size") or {}).get("shortest_edge"), config.get("crop_pct")
    if not edge or not part or not config.get("do_resize"):
        return {}
    square = {"height": edge, "width": edge}
    if edge >= WARPED:
        return {"size": square}
    return {"size": {"shortest_edge": int(edge / part)}, "do_center_crop": True, "crop_size": square}
