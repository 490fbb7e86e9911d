"""The gate before a .keras file is opened: Keras looks up, by names in the file, what it builds a model of. Its safe
mode refuses what could run code; the gate depends on neither its version nor that mode.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import CHUNK, LARGEST_RATIO, refuse_crowd
from sbertconv.artifact.json_reading import objects_in, parse_json
from sbertconv.errors import ArtifactError
from sbertconv.frameworks import import_keras
from sbertconv.keras_compat import named

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
FREE, TIMES = 1 << 28, 8  # bytes that a model's variables may take, and how often those of its file
# Bytes for each time that a layer goes round a loop whose length its config says, and for each tensor that it announces
OBJECT, TENSOR = 64, 1 << 10
# Keys of such a config whose whole numbers are values, and say the size of nothing
NO_SIZES = {
    "seed", "salt", "vocabulary", "bin_boundaries", "mask_value", "mask_token", "oov_token", "value", "fill_value",
    "x_min", "x_max", "num_bins", "max_tokens",
}  # fmt: skip
MOST_WAITING = 50_000_000  # characters of calls of layers that Keras reads again, because they wait for a later layer
# Parts of Keras that do more than compute: functions of theirs fetch files, unpack them, or load others
NO_LAYERS = re.compile(
    r"keras(\.src)?\.(utils|applications|datasets|callbacks|export|trainers|backend|distribution|legacy|wrappers"
    r"|visualization|saving|tree|testing)\b.*"
)
# Modules that Keras itself writes: its public ones, and those of operations and models that have no public name. Other
# private ones hold the bases of layers, which take numbers that those do not
WRITTEN = re.compile(r"(?!keras\.src\b).*|keras\.src\.(ops\.[\w.]+|models\.functional)")
# Classes of Keras that carry code, or the path of a file that is loaded; of sounds, which make tables of any size; that
# call functions for as long as those say
REFUSED = {
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "MelSpectrogram", "STFTSpectrogram",
    "Map", "Scan", "AssociativeScan", "VectorizedMap", "WhileLoop", "ForiLoop", "Cond", "Switch",
}  # fmt: skip
# Names in a file that stand for values, and those of Keras that compute: a file calls the functions that it names
VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
FUNCTIONS = re.compile(r"keras\.src\.(activations\.\w+|losses\.\w+|metrics\.\w+|ops\.nn)")
# Parts of Keras -> the classes of theirs whose kinds compute, or say how; versions have them or not
KINDS = {
    "": ("Operation", "Loss", "Metric", "Optimizer", "Initializer", "Regularizer", "Quantizer", "DTypePolicy"),
    "constraints": ("Constraint",),
    "layers": ("InputSpec",),
    "optimizers": ("OptimizerMap",),
    "optimizers.schedules": ("LearningRateSchedule",),
    "quantizers": ("QuantizationConfig", "GPTQConfig", "AWQConfig"),
    "random": ("SeedGenerator",),
}


def check_keras(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """Refuse a .keras file with classes that carry code, or that are neither of Keras, ours, nor registered here; and
    one whose layers stand so far from the order of their calls that Keras would search it without end.

    Returns:
        Its config.

    Raises:
        ArtifactError: naming every such class, or if the file has no config.
    """
    refuse_crowd(archive, file)
    config: dict[str, Any] = parse_json(archive.read(CONFIG), file, dict)
    if problems := sorted(set(_strangers(config))):
        raise ArtifactError(
            f"{file}: holds layers that could run code:\n"
            + "\n".join(f"  {problem:.200}" for problem in problems[:10])
            + "\nImport the module that registers them, if they are yours; otherwise do not use this file."
        )
    waiting = sum(_waiting(item["layers"]) for item in objects_in(config) if isinstance(item.get("layers"), list))
    if waiting > MOST_WAITING:
        raise ArtifactError(
            f"{file}: its layers stand before those whose outputs they take: {waiting:,} characters to read again "
            f"(have: up to {MOST_WAITING:,}).\nDo not use this file."
        )
    config["compile_config"] = None  # which is not opened
    return config


def check_weights(folder: Path, file: Path) -> None:
    """Refuse weights that say that they are much larger than their file, for HDF5 fills what it does not hold; and
    those that are no numbers of that file: a link opens whatever it names, and what is no number is of any size.

    Args:
        folder: where a .keras file is unpacked.
        file: its name, for messages.

    Raises:
        ArtifactError: for these, and for none at all.
    """
    import_keras()  # which comes with h5py
    import h5py

    most = LARGEST_RATIO * _size(folder / WEIGHTS) + CHUNK
    sizes: list[int] = []
    elsewhere: list[str] = []

    def look(name: str, held: Any) -> None:
        if isinstance(held, h5py.Group):
            links = {f"{name}/{key}": held.get(key, getlink=True) for key in held}
            elsewhere.extend(place for place, link in links.items() if not isinstance(link, h5py.HardLink))
        elif isinstance(held, h5py.Dataset):
            sizes.append(held.nbytes)
            if held.external or held.is_virtual or held.dtype.hasobject:
                elsewhere.append(f"/{name}")

    try:
        with h5py.File(folder / WEIGHTS) as weights:  # what links lead to is not visited
            look("", weights)
            weights.visititems(look)
    except Exception as error:  # OSError, RuntimeError and others: the library looks at little
        raise ArtifactError(f"{file}: not readable as weights: {error}\nGet a complete copy of the file.") from error
    if elsewhere:
        raise ArtifactError(
            f"{file}: its weights are not all in it: {', '.join(elsewhere[:10])!r:.400} (have: numbers).\n"
            "Do not use this file."
        )
    if sum(sizes) > most:
        raise ArtifactError(
            f"{file}: its weights ask for more than it holds: {sum(sizes):,} bytes (have: up to {most:,}).\n"
            "Do not use this file."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def sizes_bounded(archive: zipfile.ZipFile, config: dict[str, Any], file: Path) -> Iterator[None]:
    """In here, Keras makes no larger variables than go with what an archive holds, no layer that gives more than that
    for one text, and none that counts further: a layer's config can name any size. First values that take many times
    the size of a variable are zeros, for the file has what they become.

    Raises:
        ArtifactError: where larger ones are asked for.
    """
    keras, taken = import_keras(), OBJECT * _counted(config)
    most = FREE + TIMES * sum(member.file_size for member in archive.infolist())
    owner = next(kind for kind in keras.Variable.__mro__ if "__init__" in vars(kind))  # whichever backend's it is
    plain, plain_tensor = owner.__init__, keras.KerasTensor.__init__

    def bounded(self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        nonlocal taken
        if isinstance(initializer, str):
            initializer = keras.initializers.get(initializer)
        if isinstance(initializer, (keras.initializers.Orthogonal, keras.initializers.STFT)):
            initializer = keras.initializers.Zeros()
        if shape is not None and callable(initializer):
            taken += size_of(shape, dtype)
        if taken > most:
            raise MemoryError
        plain(self, initializer, shape, dtype, *args, **kwargs)

    def bounded_tensor(self: Any, shape: Any, dtype: Any = "float32", *args: Any, **kwargs: Any) -> None:
        nonlocal taken
        taken = max(taken + TENSOR, size_of(shape, dtype))
        if taken > most:
            raise MemoryError
        plain_tensor(self, shape, dtype, *args, **kwargs)

    owner.__init__, keras.KerasTensor.__init__ = bounded, bounded_tensor
    try:
        if taken > most:
            raise MemoryError
        yield
    except Exception as error:  # Keras makes another one of it for each model around a layer
        if taken <= most:
            raise
        raise ArtifactError(
            f"{file}: its layers ask for more than it holds: {taken:,} bytes (have: up to {most:,}).\n"
            "Do not use this file."
        ) from error
    finally:
        owner.__init__, keras.KerasTensor.__init__ = plain, plain_tensor


def size_of(shape: Any, dtype: Any) -> int:
    """The bytes of numbers of this shape and type; sizes that stay open count once."""
    bits = re.search(r"\d+", import_keras().backend.standardize_dtype(dtype))  # none: a byte
    return max(1, int(bits[0]) // 8 if bits else 1) * math.prod(size for size in shape if isinstance(size, int))


def _counted(config: Any) -> int:
    """How far the classes of Keras in a config may count: every whole number that they are made with, together."""
    return sum(
        max(number, 0)
        for item in objects_in(config)
        if isinstance(item.get("class_name"), str) and str(item.get("module")).split(".")[0] == "keras"
        for number in _leaves(_own(item["config"]) if isinstance(item.get("config"), dict) else [], _inner)
        if type(number) is int
    )


def _inner(config: dict[str, Any]) -> list[Any]:
    return [] if "class_name" in config else _own(config)  # another class, which is counted for itself


def _own(config: dict[str, Any]) -> list[Any]:
    return [value for key, value in config.items() if key not in NO_SIZES]


def _waiting(layers: list[Any]) -> int:
    """The characters of a model's calls that Keras reads again: all, at most, for each call that names a later layer.
    Those of a layer that is shared may, in a model that is written as it should be.
    """
    calls = [(place, layer["inbound_nodes"]) for place, layer in enumerate(layers) if _is_called(layer)]
    places = {layer["name"]: place for place, layer in enumerate(layers) if _is_called(layer)}
    later = sum(any(places.get(name, 0) > place for name in _leaves(call)) for place, nodes in calls for call in nodes)
    return later * sum(len(json.dumps(nodes)) for _, nodes in calls)


def _is_called(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("inbound_nodes"), list)
        and not isinstance(layer.get("name", []), list | dict)
    )


def _leaves(content: Any, parts: Callable[[dict[str, Any]], Iterable[Any]] = dict.values) -> Iterator[Any]:
    """The texts, numbers and other values in JSON that hold no others, at whatever depth."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += parts(item)
        elif isinstance(item, list):
            waiting += item
        else:
            yield item


def _strangers(config: Any) -> Iterator[str]:
    for item in objects_in(config):
        if "class_name" in item and not _computes(item):
            what = item.get("config") if item["class_name"] == "function" else item["class_name"]
            yield f"{item.get('module')}.{what}"
        calls = item.get("inbound_nodes")
        if isinstance(calls, list) and any(isinstance(call, dict) and not _takes_tensors(call) for call in calls):
            yield f"{item.get('module')}.{item.get('class_name')}, called with values of the file"


@cache
def _kinds() -> tuple[type, ...]:
    keras = import_keras()
    parts = {part: operator.attrgetter(part)(keras) if part else keras for part in KINDS}
    return tuple(getattr(parts[part], name) for part in KINDS for name in KINDS[part] if hasattr(parts[part], name))


def _takes_tensors(call: dict[str, Any]) -> bool:
    """Whether a call of a layer has a tensor of the model among what it takes: any other is made as the file is opened,
    however much it computes.
    """
    return any(item.get("class_name") == "__keras_tensor__" for item in objects_in(call))


def _computes(item: dict[str, Any]) -> bool:
    """Whether an entry of a .keras file names a value, or a class or function that computes: of Keras, or registered
    here. Keras calls a class that is named as a function, without its safe mode, and a function of any kind.
    """
    keras = import_keras()
    kind, module = item["class_name"], item.get("module")
    if not isinstance(kind, str) or kind in REFUSED:
        return False
    if kind.startswith("__"):
        return kind in VALUES
    if "module" not in item:  # then Keras goes by the class's name alone, in the way of Keras 2
        return False
    is_function = kind == "function"
    name = item.get("config") if is_function else kind
    known = name if is_function else item.get("registered_name")
    found = keras.saving.get_registered_object(known) if isinstance(known, str) else None
    if found is None:
        if not (isinstance(name, str) and isinstance(module, str) and module.split(".")[0] in ("keras", "builtins")):
            return False
        try:
            found = named(name, module, is_function)
        except Exception:  # a class that it does not have, it says itself; a function, it looks for elsewhere too
            return not is_function and not NO_LAYERS.fullmatch(module)
        if not isinstance(found, type):
            return bool(FUNCTIONS.fullmatch(getattr(found, "__module__", "")))
        if found.__name__ in REFUSED or NO_LAYERS.fullmatch(module) or not WRITTEN.fullmatch(module):
            return False
        return not is_function and issubclass(found, _kinds())
    return not isinstance(found, type) if is_function else isinstance(found, type) and found.__name__ == kind
