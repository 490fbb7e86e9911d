"""The gate before a .keras file is opened: Keras looks up, by names in the file, what it builds a model of. Its safe
mode refuses what could run code; the gate depends on neither its version nor that mode.
"""

from __future__ import annotations

import contextlib
import math
import operator
import re
import zipfile
from collections.abc import Iterator
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
# Parts of Keras that do more than compute: functions of theirs fetch files, unpack them, or load others
NO_LAYERS = re.compile(
    r"keras(\.src)?\.(utils|applications|datasets|callbacks|export|trainers|backend|distribution|legacy|wrappers"
    r"|visualization|saving|tree|testing)\b.*"
)
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


def check_keras(archive: zipfile.ZipFile, file: Path) -> None:
    """Refuse a .keras file with classes that carry code, or that are neither of Keras, ours, nor registered here.

    Raises:
        ArtifactError: naming every such class, or if the file has no config.
    """
    refuse_crowd(archive, file)
    config = parse_json(archive.read(CONFIG), file, dict)
    if problems := sorted(set(_strangers(config))):
        raise ArtifactError(
            f"{file}: holds layers that could run code:\n"
            + "\n".join(f"  {problem:.200}" for problem in problems[:10])
            + "\nImport the module that registers them, if they are yours; otherwise do not use this file."
        )


def check_weights(folder: Path, file: Path) -> None:
    """Refuse weights that say that they are much larger than their file: HDF5 fills what it does not hold.

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
    try:
        with h5py.File(folder / WEIGHTS) as weights:  # what links lead to is not visited
            weights.visititems(lambda _, held: sizes.append(getattr(held, "nbytes", 0)))
    except Exception as error:  # OSError, RuntimeError and others: the library looks at little
        raise ArtifactError(f"{file}: not readable as weights: {error}\nGet a complete copy of the file.") from error
    if sum(sizes) > most:
        raise ArtifactError(
            f"{file}: its weights ask for more than it holds: {sum(sizes):,} bytes (have: up to {most:,}).\n"
            "Do not use this file."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def sizes_bounded(archive: zipfile.ZipFile, file: Path) -> Iterator[None]:
    """In here, Keras makes no larger variables than go with what an archive holds, and no layer that gives more than
    that for one text: a layer's config can name any size.

    Raises:
        ArtifactError: where larger ones are asked for.
    """
    keras, taken = import_keras(), 0
    most = FREE + TIMES * sum(member.file_size for member in archive.infolist())
    owner = next(kind for kind in keras.Variable.__mro__ if "__init__" in vars(kind))  # whichever backend's it is
    plain, plain_tensor = owner.__init__, keras.KerasTensor.__init__

    def bounded(self: Any, initializer: Any, shape: Any = None, *args: Any, **kwargs: Any) -> None:
        nonlocal taken
        if shape is not None and callable(initializer):
            taken += size_of(shape)
        if taken > most:
            raise MemoryError
        plain(self, initializer, shape, *args, **kwargs)

    def bounded_tensor(self: Any, shape: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal taken
        if (size := size_of(shape)) > most:
            taken = size
            raise MemoryError
        plain_tensor(self, shape, *args, **kwargs)

    owner.__init__, keras.KerasTensor.__init__ = bounded, bounded_tensor
    try:
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


def size_of(shape: Any) -> int:
    """The bytes of numbers of this shape; sizes that stay open count once."""
    return 4 * math.prod(size for size in shape if isinstance(size, int))


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
        if found.__name__ in REFUSED or NO_LAYERS.fullmatch(module) or not issubclass(found, _kinds()):
            return False
    return isinstance(found, type) is not is_function
