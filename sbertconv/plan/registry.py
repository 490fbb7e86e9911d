"""Backend x module type -> converter. The tables in `converters/<backend>/__init__.py` fill it."""

from __future__ import annotations

import collections.abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sbertconv.errors import DuplicateConverterError, SbertconvError, UnsupportedOptionError
from sbertconv.source.routes import type_name

if TYPE_CHECKING:
    from sbertconv.plan.context import Converter

DYNAMIC_MODULES = "transformers_modules."


def _string_keys(module_type: type) -> tuple[str, ...]:
    """The names a class answers to as a string key: its dotted name and, for code that came with a model
    (imported under a hashed package name), the `file.Class` that its modules.json says.
    """
    name = type_name(module_type)
    if not name.startswith(DYNAMIC_MODULES):
        return (name,)
    return (name, ".".join(name.split(".")[-2:]))


class Registry:
    """Converters by backend and exact module class.

    A subclass may override forward, so an inherited match is never taken: a subclass without a converter
    of its own is traced instead. Classes that cannot be imported beforehand (a model's own code) are
    registered under their dotted name.
    """

    def __init__(self) -> None:
        self._converters: dict[str, dict[type | str, Converter]] = {}
        self._fallbacks: dict[str, Converter] = {}

    def add(self, backend: str, module_type: type | str, converter: Converter, *, override: bool = False) -> None:
        """Register `converter(module, context) -> step` for a module class or a dotted class name.

        Raises:
            DuplicateConverterError: if one is there already and `override` is not set.
            UnsupportedOptionError: for anything else than these.
        """
        kinds: tuple[tuple[Any, Any], ...] = (
            (backend, str),
            (module_type, (type, str)),
            (converter, collections.abc.Callable),
        )
        if not all(isinstance(value, kind) for value, kind in kinds):
            given = ", ".join(f"{value!r:.40}" for value in (backend, module_type, converter))
            raise UnsupportedOptionError(
                f"add({given}) (have: a backend's name, a module class or its dotted name, a function).\nPass these."
            )
        table = self._converters.setdefault(backend, {})
        if module_type in table and not override:
            raise DuplicateConverterError(
                f"A converter for {type_name(module_type)} to {backend!r} is registered already.\n"
                "Pass override=True to replace it."
            )
        table[module_type] = converter

    def add_fallback(self, backend: str, converter: Converter) -> None:
        """Set how a backend converts a module without a converter of its own: by tracing its forward."""
        self._fallbacks[backend] = converter

    def fallback(self, backend: str) -> Converter:
        """The converter for modules that `find` knows nothing about."""
        return self._fallbacks[backend]

    def find(self, backend: str, module: Any) -> Converter | None:
        """The converter for this module (or module class), or None: then its forward is traced."""
        module_type = module if isinstance(module, type) else type(module)
        table = self._converters.get(backend, {})
        for key in (module_type, *_string_keys(module_type)):
            if key in table:
                return table[key]
        return None

    def supported(self, backend: str) -> Mapping[str, Converter]:
        """Dotted module class name -> converter, for one backend."""
        table = self._converters.get(backend, {})
        return MappingProxyType({type_name(key): converter for key, converter in table.items()})

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends with at least one converter."""
        return tuple(self._converters)


def register_plugins(group: str, what: str, registry: Any) -> None:
    """Call the function `register(registry)` of every installed plugin.

    Args:
        group: the entry point group that names them.
        what: what they add, in a word, for messages.
        registry: what they add it to.

    Raises:
        SbertconvError: if a plugin cannot be imported or its `register` fails, with the plugin's name; of the
            same type as the plugin's own error if that is one.
    """
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=group):
        try:
            entry_point.load()(registry)
        except Exception as error:
            said = (
                f"The {what} plugin {entry_point.name!r} ({entry_point.value}) failed: {error}\n"
                "Fix or uninstall that package."
            )
            if isinstance(error, SbertconvError):
                error.args = (said, *error.args[1:])  # whatever else its class takes
                raise
            raise SbertconvError(said) from error
