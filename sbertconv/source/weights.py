"""Weights that are missing from a model's files, or not finite: found before anything is converted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.errors import SourceError
from sbertconv.memory import bounded_memory
from sbertconv.source.hearing import Heard, listed

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from sbertconv.source.routes import Route

ROOM = 1 << 29  # bytes that a tokenizer or a processor may take for one input
PROBE_RATE = 16_000  # of sounds, as most models have it
PROBE_TEXTS = ["a text to see whether the weights that are missing matter", "short"]
PIECE = 1 << 22  # numbers that are looked at together
MATTERS = 1e-5  # float32 noise is below; a random query or value weight moves an embedding by 0.1 and more


def refuse_missing(model: SentenceTransformer, heard: Heard, name: str, feature: str) -> None:
    """Made-up weights are fine only where the feature that the chain ends with does not depend on them (a pooler that
    Pooling skips).

    One batch per route is run with these weights at zero and once more with random ones.

    Args:
        model: the model as it was loaded.
        heard: which weights were not found.
        name: of the model, for messages.
        feature: what its chain ends with.

    Raises:
        SourceError: naming the weights, if the feature differs.
    """
    import torch

    owners = {id(owner): owner for owner, _ in heard.missing}
    known = {place: dict(owner.named_parameters()) for place, owner in owners.items()}
    weights = [(key, known[id(owner)][key]) for owner, key in heard.missing if key in known[id(owner)]]
    if not weights:
        return
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in weights:
            weight.normal_(generator=generator)
        random = _probe(model, feature)
        for _, weight in weights:
            weight.zero_()
        zero = _probe(model, feature)
    if any(np.abs(a - b).max() > MATTERS for a, b in zip(random, zero, strict=True)):
        raise SourceError(
            f"{name}: {len(weights)} weights are missing from its files and would be random: "
            f"{listed([key for key, _ in weights])}\n{_advice(heard)}"
        )


def _advice(heard: Heard) -> str:
    """Where the weights are, if the library does not look there: the encoders of some encoder-decoders."""
    if not heard.prefix:
        return "Get a complete copy of the model."
    part, (owner, _) = heard.prefix.rstrip("."), heard.missing[0]
    return (
        f"Its files have them in {part}, where {type(owner).__name__} does not look, so that encode() is random too.\n"
        "Save that part alone with the tokenizer or processor beside it: AutoModel.from_pretrained(model).get_encoder()"
        ".save_pretrained(folder)."
    )


def _probe(model: SentenceTransformer, feature: str) -> list[np.ndarray]:
    """The feature of one small batch per route."""
    from sbertconv.source.asking import asking
    from sbertconv.source.routes import find_routes

    found = []
    for route in find_routes(model):
        with asking():
            found.append(_answer(model, route, _inputs(route))[feature].numpy())
    return found


def _inputs(route: Route) -> list[Any]:
    """Two inputs of a route."""
    from sbertconv.corpus.texts import random_images, random_sounds

    probes: dict[str, Callable[[], list[Any]]] = {
        "text": lambda: PROBE_TEXTS,
        "image": random_images,
        "audio": lambda: random_sounds(PROBE_RATE, PROBE_RATE),
    }
    return probes[route.modality]()[:2]


def _answer(model: SentenceTransformer, route: Route, inputs: Sequence[Any]) -> Any:
    """The features that a route ends with.

    Raises:
        SourceError: if what is made of the inputs before the model gets them takes more than `ROOM`.
    """
    task = {"task": route.tasks[0]} if route.tasks and route.tasks[0] else {}
    try:
        with bounded_memory(ROOM):
            features = model.preprocess(list(inputs), **task)
    except MemoryError as error:
        raise SourceError(
            f"its settings make more than {ROOM >> 20:,} MiB of one {route.modality} before the model gets it.\n"
            "Mend the sizes in the settings of its tokenizer or its processor."
        ) from error
    return model(features, **task)


def refuse_excess(model: SentenceTransformer, folder: Path | None, name: str) -> None:
    """One input of each route is answered within the allowance of a folder. What else the model raises at that, it
    raises again where more is known of what it takes.

    Raises:
        SourceError: if an answer takes more than goes with the weights.
    """
    import torch

    from sbertconv.source.allowance import Allowance
    from sbertconv.source.routes import find_routes

    try:
        routes = find_routes(model)
    except Exception:
        return
    for route in routes:
        one = _inputs(route)[-1]
        for given in (one, (one, one)):  # a model of pairs may take no single text
            allowance = Allowance(folder)
            try:
                with torch.no_grad(), allowance:
                    _answer(model, route, [given])
                break
            except Exception as error:
                excess = allowance.exceeded or (error if isinstance(error, SourceError) else None)
                if excess is not None:
                    raise SourceError(f"{name}: {excess}") from error


def refuse_non_finite(model: SentenceTransformer, name: str) -> None:
    """Raise SourceError, naming them, if weights hold NaN, infinity or nothing at all."""
    from sbertconv.source.widening import stored

    if empty := [key for key, weight in model.named_parameters() if not weight.numel()]:
        raise SourceError(f"{name}: {len(empty)} weights hold no numbers: {listed(empty)}\nGet a complete copy of it.")
    bad = [key for key, weight in model.named_parameters() if not _is_finite(stored(weight))]
    if bad:
        raise SourceError(
            f"{name}: {len(bad)} weights hold NaN or infinity: {listed(bad)}\n"
            "Its embeddings cannot be right; get or train another copy."
        )


def _is_finite(weight: torch.Tensor) -> bool:
    """Looks at some rows at a time: what is computed from a whole table takes as much memory as that."""
    import torch

    rows = max(1, PIECE * len(weight) // weight.numel()) if weight.ndim > 1 and weight.numel() else PIECE
    return all(bool(torch.isfinite(part).all()) for part in torch.atleast_1d(weight.detach()).split(rows))
