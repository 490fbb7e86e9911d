"""The image processors of a model, on Pillow while it is converted: transformers has most of them twice, and takes the
form on torchvision where that is installed, whose pixels are other ones by a step of 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sbertconv.source.transformers_compat import on_pillow

NOTE = (
    "torchvision is installed, so that encode() prepares images with it here, and with Pillow where it is not: this is "
    "converted and compared as with Pillow. Vectors of images differ a little between the two."
)


@contextmanager
def processors_on_pillow(model: Any, heard: list[str]) -> Iterator[None]:
    """Have every module of a model prepare images with Pillow, in here.

    Args:
        model: a SentenceTransformer or one of its kin.
        heard: what to tell of the model, to which `NOTE` is added where that makes a difference.
    """
    holders = [(module, "processor") for module in model.modules() if hasattr(module, "processor")]
    holders += [(getattr(module, name), "image_processor") for module, name in holders]
    replaced = []
    try:
        for holder, name in holders:
            processor = getattr(holder, name, None)
            if (other := on_pillow(processor)) is not None:
                replaced.append((holder, name, processor))
                setattr(holder, name, other)
        if replaced:
            heard.append(NOTE)
        yield
    finally:
        for holder, name, processor in replaced:
            setattr(holder, name, processor)
