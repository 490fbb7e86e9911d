"""What an image processor does to an image before the graph, written down for the run time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.manifest import problems_of_image
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.runtime.images import SETTINGS as IMAGE_SETTINGS

TRANSFORMER_CONFIG = "sentence_bert_config.json"
WARPED = 384  # pixels: from here on ConvNeXt's image processor crops nothing


def describe_image(module: Any) -> dict[str, Any]:
    """The settings of the image processor of a module.

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
    if unknown := [name for name in given if name not in IMAGE_SETTINGS]:
        raise UnsupportedOptionError(
            f"processing_kwargs: {', '.join(unknown)} is not supported for images (have: "
            f"{', '.join(IMAGE_SETTINGS)}).\n"
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
