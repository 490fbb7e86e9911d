"""What a chain is traced with: tensors of an example batch, and the features that reach each of its modules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from sbertconv.artifact.graph_inputs import PER_TEXT, PIXELS
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.corpus.texts import random_images
from sbertconv.errors import UnsupportedModuleError, UnsupportedOptionError
from sbertconv.plan.routes import DescribedRoute
from sbertconv.runtime.images import image_tensors
from sbertconv.runtime.sounds import feature_shape
from sbertconv.runtime.tokenization import Text
from sbertconv.source.asking import asking
from sbertconv.source.routes import GROUPS, MASK

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.artifact.manifest import ImageSection, SoundSection

TEXTS = ["an example of a text that is traced, with more words than the other two", "short", ""]
WINDOW = re.compile(r"window|local|chunk|block|top_?k")  # config entries that change attention beyond a length
LONGEST = 4096
CHANNELS = 3
FRAMES = 16  # at least, of a sound to trace with


class Walk:
    """The modules of a route, and what reaches each of them when the route runs on an example batch."""

    def __init__(self, route: DescribedRoute, model: SentenceTransformer) -> None:
        self.route = route
        self.model = model
        self._reached: list[dict[str, Any]] = []
        self._broken = ""

    def features(self, module: torch.nn.Module) -> dict[str, Any]:
        """The features that reach a module, as sentence-transformers would pass them.

        Raises:
            UnsupportedModuleError: if a module before it fails.
        """
        place = next(index for index, (_, found) in enumerate(self.route.modules) if found is module)
        with torch.no_grad():
            if not self._reached:
                self._reached.append(example_features(self.route, self.model))
            while len(self._reached) <= place and not self._broken:
                label, before = self.route.modules[len(self._reached) - 1]
                try:
                    self._reached.append(before(dict(self._reached[-1])))
                except Exception:  # a setting that its converter refuses, most likely, and reports better
                    self._broken = label
        if len(self._reached) <= place:
            raise UnsupportedModuleError(f"nothing reaches it, [{self._broken}] fails")
        return dict(self._reached[place])


def example_features(route: DescribedRoute, model: SentenceTransformer) -> dict[str, Any]:
    """The library's own features of a few texts; padded tokens are replaced by a batch that suits tracing."""
    if route.modality != "text":
        return {**with_tokens(route, other_example(route)), "modality": route.modality}
    features = asked(route, model)
    ids = features.get("input_ids")  # a bag of words has none
    if route.input is not None and ids is not None and ids.ndim == 2:
        section = route.input.section
        known = sorted({int(number) for number in ids.flatten()})
        features |= {name: t for name, t in token_example(route, section, known).items() if name in features}
    return features | ({"prompt_length": 1} if route.takes_prompt_length else {})


def asked(route: DescribedRoute, model: SentenceTransformer, prompt: str | None = None) -> dict[str, Any]:
    """The library's own features of a few texts, behind a prompt."""
    task = route.tasks[0] if route.tasks else None
    templates = route.input.section.get("templates") if route.input else None
    texts = examples(not templates or any(case["slots"] == ["text"] for case in templates))
    with asking():
        return dict(model.preprocess(texts, prompt=prompt, **({"task": task} if task else {})))


def examples(single: bool) -> list[Text]:
    """A few texts, or pairs for a model that takes no single ones."""
    return [text if single else (text, text) for text in TEXTS]


def token_example(route: DescribedRoute, section: Mapping[str, Any], known: Sequence[int]) -> dict[str, torch.Tensor]:
    """A batch to trace with: several rows of different lengths, longer than any attention window.

    Sizes 0 and 1, and two equal dynamic sizes, would be taken for constants or for each other.

    Args:
        route: where the tokens go.
        section: the manifest's description of its tokenizer.
        known: token ids that exist.

    Returns:
        input_ids, token_type_ids, attention_mask [rows, length], prompt_length and is_query [rows], all int64.
    """
    limit = section["max_length"] or LONGEST
    length = max(min(max(11, _longest_window(route) + 3), limit, LONGEST), 2)
    rows = 3 if length != 3 else 5
    ids = torch.tensor([[known[(row + column) % len(known)] for column in range(length)] for row in range(rows)])
    mask = torch.ones_like(ids)
    for row, count in enumerate((length, length // 2 + 1, 1)):
        padding = slice(count, None) if section["padding_side"] == "right" else slice(0, length - count)
        mask[row, padding] = 0
        ids[row, padding] = section["pad_id"]
    return {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
        "attention_mask": mask,
        "prompt_length": torch.ones(rows, dtype=torch.int64),
        IS_QUERY: torch.arange(rows) % 2,
    }


def other_example(route: DescribedRoute, beyond: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of three images or sounds: theirs, float32 [3, ...], and is_query, int64 [3]; of sounds of any length
    so many places as make frames and some beyond, of rows also their mask, int64 [3, places].
    """
    numbers = torch.arange(3) % 2
    places = FRAMES * (1 if route.places is None else route.places.fewest) + 3 + beyond  # no multiple of anything
    full = torch.arange(places) < torch.tensor([[places], [places - 1], [places // 2]])
    given = {MASK: full.long()}
    given |= {name: torch.from_numpy(array) for name, array in _patched(route).items()}
    for name in route.inputs:
        if name not in given:
            sizes = () if name in PER_TEXT else tensor_shape(route, name)
            given[name] = numbers if name in PER_TEXT else torch.rand(3, *(size or places for size in sizes))
    return {name: given[name] for name in route.inputs}


def _patched(route: DescribedRoute) -> dict[str, np.ndarray]:
    """The tensors of three images in patches, or of one as tokens of any number; none of others."""
    section = cast("ImageSection", {} if route.input is None else route.input.section)
    counts = [count for name, count in {"patches": 3, "grid": 1}.items() if name in section]
    return image_tensors(random_images()[: counts[0]], section) if counts else {}


def tensor_shape(route: DescribedRoute, name: str) -> tuple[int | None, ...]:
    """The sizes of an image's or sound's tensor: [channels, height, width], those of its patches or its spectrogram, or
    [None] for samples and [None, numbers] for rows of any number.
    """
    if name in (patched := _patched(route)):
        return patched[name].shape[1:]
    if route.wave is not None:
        return (None,)
    if route.modality == "image" or route.input is None:
        return (CHANNELS, *image_size(route))
    return feature_shape(cast("SoundSection", route.input.section))


def with_tokens(route: DescribedRoute, features: dict[str, Any]) -> dict[str, Any]:
    """The features of images with those that are the same for every image, int64 [batch, tokens]; of one image as any
    number of tokens also its patches in a row, float32 [1, patches, numbers].
    """
    section = {} if route.input is None else route.input.section
    if "grid" in section:
        place, groups = section["grid"]["place"], features[GROUPS]
        rows = {name: torch.tensor(numbers) for name, numbers in route.tokens.items()}
        found = {
            name: torch.cat([row[:place], row[place].expand(groups.shape[0]), row[place + 1 :]]).unsqueeze(0)
            for name, row in rows.items()
        }
        return {**features, PIXELS: groups.flatten(0, 1).unsqueeze(0), **found}
    batch = next(iter(features.values())).shape[0]
    found = {name: torch.tensor([numbers]).expand(batch, -1) for name, numbers in route.tokens.items()}
    return {**features, **found}


def _configs(route: DescribedRoute) -> Iterator[Mapping[str, Any]]:
    """The transformers configs of a route's modules, nested ones included."""
    waiting = [m.config.to_dict() for _, m in route.modules if hasattr(getattr(m, "config", None), "to_dict")]
    while waiting:
        config = waiting.pop()
        yield config
        waiting += [value for value in config.values() if isinstance(value, dict)]


def _longest_window(route: DescribedRoute) -> int:
    return max(
        (v for c in _configs(route) for k, v in c.items() if WINDOW.search(str(k)) and type(v) is int), default=0
    )


def image_size(route: DescribedRoute) -> tuple[int, int]:
    """Height and width of the images that a route takes.

    Raises:
        UnsupportedOptionError: if the model's config does not say.
    """
    sizes = [config["image_size"] for config in _configs(route) if config.get("image_size")]
    if not sizes:
        raise UnsupportedOptionError("The image size is not in the model's config.\nSet image_size there.")
    size = sizes[-1]
    return (size, size) if isinstance(size, int) else (size[0], size[1])
