"""Fewer layers: some blocks of a model's encoder, which was not trained so, behind a quality gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbertconv.errors import UnsupportedModuleError, UnsupportedOptionError
from sbertconv.options import LayerOptions, LikenessOptions
from sbertconv.reduction.checkpoints import Size, changeable, refuse_class, reopened, save, settle, stored_dtype
from sbertconv.reduction.likeness import embedded, gate_texts, held
from sbertconv.reduction.reports import Figure, Reduction
from sbertconv.source.routes import live_modules, modalities_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.artifact.publishing import Staging
    from sbertconv.source.opening import Source

COUNT = "num_hidden_layers"
LONGEST_NUMBER = 9  # digits
PLACES = ("layer_idx", "layer_id", "layer_index", "layer_number", "idx", "training")  # of a block, where it stands
Facts = dict[str, Any]


@dataclass(frozen=True)
class Encoder:
    """The module of a chain that has layers.

    Attributes:
        inner: the transformers model.
        config: the config that says how many.
        lists: its lists of layers; of an architecture with a list for each part of a layer, all of these.
    """

    inner: Any
    config: Any
    lists: Sequence[Any]

    @property
    def count(self) -> int:
        return int(getattr(self.config, COUNT))

    def facts(self, place: int) -> Facts:
        """The settings and shapes of one layer, without its place."""
        found: Facts = {}
        for number, blocks in enumerate(self.lists):
            for name, module in blocks[place].named_modules():
                plain = {key: value for key, value in vars(module).items() if key not in PLACES and _is_plain(value)}
                found |= {f"{number}.{name}.{key}": value for key, value in plain.items() if not key.startswith("_")}
            found |= {f"{number}.{name}": tuple(weight.shape) for name, weight in blocks[place].named_parameters()}
        return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def shorten(
    source: Source, layers: LayerOptions, gate: LikenessOptions, staging: Staging, on_stage: Callable[[str], None]
) -> Reduction:
    """Write the model with some of its layers, and hold its similarities to the original's.

    Raises:
        UnsupportedOptionError: for layers that the model does not have.
        UnsupportedModuleError: for a model without layers, or whose layers cannot stand at another place.
        ParityError: if it stays below the gate.
    """
    refuse_class(source, ("SentenceTransformer",), "shorten", "the gate looks at similarities of vectors")
    texts = gate_texts(gate.texts)
    on_stage("loading the model")
    with changeable(source) as model:
        encoder = encoder_of(model, source)
        kept = chosen(layers.layers, encoder.count)
        dtype = stored_dtype(source)
        before, count = Size.of(model, dtype), encoder.count
        facts = [encoder.facts(place) for place in kept]
        on_stage("asking the original")
        theirs, slow = embedded(model, source, texts)
        on_stage("writing")
        cut(encoder, kept)
        save(model, source, staging, dtype)
    on_stage("comparing with encode()")
    with reopened(source, staging).loaded() as written:
        settle(written)
        again = encoder_of(written, source)
        refuse_another_place(facts, [again.facts(place) for place in range(again.count)], kept, source)
        after = Size.of(written, dtype)
        ours, fast = embedded(written, source, texts, smaller=True)
    report = held(texts, theirs, ours, gate, one_space=True)
    figures = (
        Figure("layers", count, len(kept)),
        Figure("parameters", before.parameters, after.parameters),
        Figure("bytes", before.bytes, after.bytes),
        Figure("seconds", slow, fast),
    )
    notes = (*source.notes, f"Layers {', '.join(map(str, kept))} of {count}, from 0.")
    return Reduction(staging.target, "shorten", figures, report, notes)


def encoder_of(model: SentenceTransformer, source: Source) -> Encoder:
    """The one module of the chain with a list of equal layers, as many as its config says.

    Raises:
        UnsupportedModuleError: if there is none, or several, or layers for images too.
    """
    if others := sorted(modalities_of(model) - {"text", "message"}):
        raise UnsupportedModuleError(
            f"{source.name}: takes {', '.join(others)} too, with layers of their own (have: text alone).\n"
            "Its layers cannot be left out."
        )
    found = [encoder for _, module in live_modules(model) if (encoder := _encoder_in(module)) is not None]
    if len(found) != 1:
        chain = ", ".join(f"[{label}] {type(module).__name__}" for label, module in live_modules(model))
        raise UnsupportedModuleError(
            f"{source.name}: {len(found)} modules with a list of {COUNT} layers, where one is due (have: {chain}).\n"
            "It has no layers that could be left out."
        )
    return found[0]


def _encoder_in(module: Any) -> Encoder | None:
    inner = getattr(module, "model", None)
    config: Any = getattr(inner, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(config, COUNT, None)
    lists = list(_lists(inner, count)) if isinstance(count, int) and hasattr(inner, "named_modules") else []
    return Encoder(inner, config, lists) if lists else None


def _lists(inner: Any, count: int) -> Iterator[Any]:
    """The outermost lists of so many modules of one class."""
    import torch

    outer: list[str] = []
    for name, module in inner.named_modules():
        is_list = isinstance(module, torch.nn.ModuleList) and len(module) == count and len(set(map(type, module))) == 1
        if is_list and not any(name.startswith(f"{one}.") for one in outer):
            outer.append(name)
            yield module


def chosen(layers: str, count: int) -> list[int]:
    """The layers that stay, of so many: "3" are the first three, "0,2,5" these.

    Raises:
        UnsupportedOptionError: for what is no such list, is not there, or leaves out none.
    """
    if count < 2:
        raise UnsupportedOptionError(f"layers={layers!r}: the model has one layer.\nConvert it as it is.")
    parts = [part.strip() for part in layers.removesuffix(",").split(",")]
    if not all(part.isdecimal() and len(part) <= LONGEST_NUMBER for part in parts):
        raise UnsupportedOptionError(
            f"layers={layers!r:.100}: neither a number nor a list of them (have: 1 to {count - 1} layers, or places "
            f"from 0 to {count - 1} with commas).\nPass 3 for the first three, or 0,2,5 for these."
        )
    numbers = [int(part) for part in parts]
    kept = list(range(min(numbers[0], count))) if layers.strip().isdecimal() else numbers
    if not kept or len(kept) >= count or kept != sorted(set(kept)) or kept[-1] >= count:
        raise UnsupportedOptionError(
            f"layers={layers!r:.100}: the model has {count} layers (have: 1 to {count - 1} of them, or places from "
            f"0 to {count - 1}, each once and in order).\nChoose among these."
        )
    return kept


def cut(encoder: Encoder, kept: Sequence[int]) -> None:
    """Leave these layers in every list, and what the config says of each layer."""
    count = encoder.count
    for blocks in encoder.lists:
        left = [blocks[place] for place in kept]
        del blocks[len(left) :]
        for place, block in enumerate(left):
            blocks[place] = block
    for key, value in list(vars(encoder.config).items()):
        if isinstance(value, (list, tuple)) and len(value) == count:
            setattr(encoder.config, key, type(value)(value[place] for place in kept))
    setattr(encoder.config, COUNT, len(kept))


def refuse_another_place(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], kept: Sequence[int], source: Source
) -> None:
    """Raise UnsupportedModuleError if a layer is another one at its new place, as where every third attends to all."""
    for place, (old, new, was) in enumerate(zip(before, after, kept, strict=True)):
        if differing := sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
            raise UnsupportedModuleError(
                f"{source.name}: layer {was} would be another one at place {place}: {', '.join(differing[:3])}.\n"
                "Choose layers that keep their order of kinds, such as the first ones."
            )
