"""A Hub id, a folder or a live SentenceTransformer -> Source: what the model is, checked before it is loaded."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import MANIFEST, given_path
from sbertconv.artifact.kinds import HEADS, MODEL_CLASSES, ModelClass, class_named
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.errors import SbertconvError, SourceError, UnsupportedOptionError, error_text, missing_packages, require
from sbertconv.frameworks import Replaced
from sbertconv.runtime.engines import start_engine
from sbertconv.source.adapters import passed_over
from sbertconv.source.bare import BARE, POOLING, TOKEN_MODULES
from sbertconv.source.chain import ModuleSpec
from sbertconv.source.checkpoints import architecture
from sbertconv.source.description import (
    CONFIG,
    MOST_MODULES,
    OWN_TYPES,
    base_name,
    base_of,
    check_preprocessing,
    description_on_hub,
    read_modules,
    read_settings,
)
from sbertconv.source.files import (
    ADAPTER_CONFIG,
    COPY,
    HEAD_FILES,
    TOKENIZER,
    check_entries,
    heads_in,
    is_there,
    missing_files,
    read_adapter,
    read_json,
    unread_weights,
)
from sbertconv.source.hearing import Heard, listening, tokens_of_another_file, tokens_without_a_row
from sbertconv.source.hub_answers import checked_answers
from sbertconv.source.kinds import CLASS_SOURCES, class_of
from sbertconv.source.naming import like, model_name
from sbertconv.source.processors import processors_on_pillow
from sbertconv.source.rendering import bounded_templates
from sbertconv.source.routes import live_modules, type_name
from sbertconv.source.tasks import adapters_note, tasks_apart
from sbertconv.source.weights import refuse_excess, refuse_missing, refuse_non_finite

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Source:
    """A model that exists and whose description could be read.

    Attributes:
        name: the Hub id, the folder's path, or the live model's own name.
        folder: where its description lies on disk; None for a live object.
        location: what SentenceTransformer loads; None for a live object.
        revision: the Hub commit, if it came from the Hub.
        modules: the chain, routers opened up.
        settings: config_sentence_transformers.json.
        notes: what was assumed, to be said aloud.
        model_class: what kind of model it is.
        changes: attributes of the model that are others while it is loaded.
        heads: outputs that heads beside the model give; they are read when it is loaded.
        pooling: of a bare checkpoint, the mode asked for in the place of the library's own.
        allow_changed: whether a model that does not load as its files describe it is converted all the same.
        tasks: the adapters or tasks that become routes while it is loaded.
        heard: what the libraries said each time that it was loaded.
    """

    name: str
    folder: Path | None
    location: str | None
    revision: str | None
    trust_remote_code: bool
    modules: tuple[ModuleSpec, ...]
    settings: Mapping[str, Any]
    model_class: ModelClass
    notes: tuple[str, ...] = ()
    live: SentenceTransformer | None = field(default=None, repr=False)
    changes: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    pooling: str | None = None
    allow_changed: bool = False
    tasks: tuple[str, ...] = ()
    heard: list[str] = field(default_factory=list, compare=False)

    @contextlib.contextmanager
    def loaded(self, *, widened_late: bool = False) -> Iterator[SentenceTransformer]:
        """The model in float32 on the CPU, in evaluation mode, every weight present and finite.

        A live model is left as it was: a copy is made if it is not float32 on the CPU, and modules that were
        in training mode are so again afterwards.

        Args:
            widened_late: leave the large weights of a half-precision checkpoint in its file, see `widening`.

        Raises:
            SourceError: if weights are missing, corrupt or not finite, or the model cannot be built.
            UnsupportedOptionError: if PyTorch has run here before this process was forked, whose threads it lacks.
        """
        start_engine("torch")
        with rust_errors(self.name, SourceError), bounded_templates, checked_answers:
            yield from self._prepared(widened_late)

    def _prepared(self, widened_late: bool) -> Iterator[SentenceTransformer]:
        model = self._load_from_files(widened_late) if self.live is None else _float32_on_cpu(self.live)
        self.heard.extend([*tokens_without_a_row(model), *self._other_tokenizers(model)])
        training = [module for module in model.modules() if module.training]
        changes = {**self.changes, **({HEADS: self._read_heads(model)} if self.heads else {})}
        own = {name: getattr(model, name, MISSING) for name in changes}
        model.eval()
        if not self.tasks:
            self.heard.extend(adapters_note(model))
        try:
            for name, value in changes.items():
                setattr(model, name, value)
            refuse_non_finite(model, self.name)
            size = getattr(model, "truncate_dim", None)
            if size is not None and size <= 0:
                raise SourceError(
                    f"{self.name}: its truncate_dim is {size}, which leaves nothing of an embedding.\n"
                    "Mend truncate_dim in config_sentence_transformers.json."
                )
            with tasks_apart(model, self.tasks, self.name), processors_on_pillow(model, self.heard):
                if self.live is None:
                    refuse_excess(model, self.folder, self.name)
                yield model
        finally:
            for name, value in own.items():
                if value is MISSING:
                    delattr(model, name)
                else:
                    setattr(model, name, value)
            for module in training:
                module.training = True
            if model is not self.live:
                _empty(model)

    def _read_heads(self, model: SentenceTransformer) -> Mapping[str, Any]:
        from sbertconv.source.heads import read_heads

        folder, transformer = self.folder, next(iter(model.children()))
        if folder is None or not hasattr(transformer, "get_embedding_dimension"):
            raise SourceError(
                f"{self.name}: its first module gives no token embeddings to a head.\nLeave outputs= out."
            )
        return read_heads(folder, self.heads, transformer.get_embedding_dimension())

    def _other_tokenizers(self, model: SentenceTransformer) -> Iterator[str]:
        modules = dict(live_modules(model))
        folder = self.folder
        for spec in self.modules if folder is not None else ():
            tokenizer = getattr(modules.get(spec.label), "tokenizer", None)
            said = tokens_of_another_file(tokenizer, Path(folder or "") / spec.path / TOKENIZER)
            if said:
                yield f"[{spec.label}] {said}"

    def resolve(self, spec: ModuleSpec) -> type:
        """The class of a module.

        Raises:
            SourceError: if it lies outside sentence-transformers and was not trusted, or does not exist.
        """
        import torch
        from sentence_transformers.base.modules import Module
        from sentence_transformers.util import import_module_class

        if self.location is None:
            return self._live_types[spec.type]
        if not spec.type.startswith(OWN_TYPES) and not self.trust_remote_code:
            raise SourceError(f"{spec.type} is code from outside sentence-transformers; trust_remote_code=True runs it")
        try:
            with checked_answers:
                resolved: type = import_module_class(
                    spec.type, self.location, trust_remote_code=self.trust_remote_code, revision=self.revision
                )
        except Exception as error:
            raise SourceError(f"{spec.type} cannot be imported: {error_text(error, 3)}") from error
        # Whole models of the library are torch's modules too, and load other files than those that were looked at
        wanted = torch.nn.Module if self.trust_remote_code else Module
        if not (isinstance(resolved, type) and issubclass(resolved, wanted)):
            raise SourceError(f"{spec.type} is no module")
        return resolved

    @property
    def _live_types(self) -> dict[str, type]:
        return {type_name(type(module)): type(module) for _, module in live_modules(self.live)} if self.live else {}

    def check_classes(self) -> None:
        """Raise SourceError, naming all of them, if classes of the chain cannot be imported or were not trusted."""
        problems = []
        for spec in self.modules:
            try:
                self.resolve(spec)
            except SourceError as error:
                problems.append(f"  [{spec.label}] {error}")
        if problems:
            raise SourceError(
                f"{self.name}: {len(problems)} of {len(self.modules)} modules cannot be loaded:\n"
                + "\n".join(problems)
                + "\nPass trust_remote_code=True if you trust the code that comes with the model; "
                "install the packages that it needs."
            )

    def _load_from_files(self, widened_late: bool) -> SentenceTransformer:
        import sentence_transformers
        import torch

        from sbertconv.source import widening
        from sbertconv.source.allowance import Allowance

        # Code that comes with a model may write through views of its weights, which would be lost.
        late = widening.widened_late() if widened_late and not self.trust_remote_code else contextlib.nullcontext()
        load = getattr(sentence_transformers, self.model_class.library)
        fetching = contextlib.nullcontext() if self._may_fetch() else _fetching_nothing
        with listening() as heard, late, fetching, Allowance(self.folder):
            try:
                model: SentenceTransformer = load(
                    self.location,
                    device="cpu",
                    revision=self.revision,
                    trust_remote_code=self.trust_remote_code,
                    model_kwargs={"dtype": torch.float32},
                )
            except SourceError as error:
                raise SourceError(f"{self.name}: {error}") from error
            except Exception as error:
                raise SourceError(
                    f"{self.name}: cannot be loaded: {error_text(error, 3)}\n"
                    f"Check that its files are complete and readable: {load.__name__} must be able to load it."
                ) from error
        try:
            model = model.float()
        except NotImplementedError as error:  # of 4 bits
            raise SourceError(
                f"{self.name}: has weights of a type that PyTorch cannot widen: {error_text(error)}\n"
                "Get a copy of the model in float32, float16 or bfloat16."
            ) from error
        heard.passed_over += passed_over(model, self.folder)
        self._say(heard)
        if self.pooling is not None:
            model[1] = type(model[1])(model[0].get_embedding_dimension(), self.pooling)
        kind = CLASS_SOURCES[self.model_class.name]
        kind.prepare(model)
        refuse_missing(model, heard, self.name, kind.feature)
        return model

    def _may_fetch(self) -> bool:
        """Whether parts of it may lie on the Hub: of a model from there, trusted code, the base of an adapter."""
        if self.folder is None or self.revision is not None or self.trust_remote_code:
            return True
        folders = [self.folder, *(self.folder / spec.path for spec in self.modules)]
        bases = [base_name(folder) for folder in dict.fromkeys(folders)]
        return any(base is not None and not given_path(base, SourceError).is_dir() for base in bases)

    def _say(self, heard: Heard) -> None:
        """Add to the notes.

        Raises:
            SourceError: if what was loaded is another model than the files describe, unless that is allowed.
        """
        if heard.changes and not self.allow_changed:
            raise SourceError(
                f"{self.name}: it does not load as its files describe it:\n"
                + "\n".join(f"  {change}" for change in heard.changes)
                + "\nMend its files, pass trust_remote_code=True if it comes with code that you trust, or pass "
                "allow_changed=True to convert what encode() computes all the same."
            )
        self.heard.extend([*heard.notes, *(f"Converted all the same: {change}" for change in heard.changes)])


def _float32_on_cpu(model: SentenceTransformer) -> SentenceTransformer:
    """The model itself if it is that already, or a copy."""
    import torch

    weights = [weight for weight in model.state_dict().values() if weight.is_floating_point()]
    if all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights):
        return model
    return copy.deepcopy(model).cpu().float()


def _empty(model: SentenceTransformer) -> None:
    """Give the weights' memory back: exporters keep references to a few, and one is enough to hold the whole
    memory-mapped file.
    """
    import torch

    from sbertconv.source.widening import Widened

    for weight in (*model.parameters(), *model.buffers()):
        if isinstance(weight, Widened):
            weight.empty()
        else:
            weight.data = torch.empty(0, dtype=weight.dtype)


def open_source(
    model: str | Path | SentenceTransformer,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    tasks: Sequence[str] = (),
) -> Source:
    """Find a model and read its description; no weights are loaded.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether code that comes with the model may run.
        model_class: a name of `MODEL_CLASSES`: what a checkpoint without files of sentence-transformers is read as;
            None: what its config.json tells.
        pooling: how the token embeddings of such a checkpoint become one; None: as in SentenceTransformer.
        allow_changed: see `Source`.
        tasks: see `Source`.

    Raises:
        SourceError: if it does not exist, is not a model, or its files cannot be read.
        UnsupportedOptionError: for a class or a pooling that is not known, or that the model cannot have.
        MissingDependencyError: if sentence-transformers is not installed.
    """
    require("onnx", "torch", "sentence_transformers")
    model = model_name(model)
    try:
        if not isinstance(model, (str, Path)):
            source = _from_live(model)
        elif (path := given_path(model, SourceError)).exists():
            source = _from_folder(path, str(model), str(path), None, trust_remote_code, model_class)
            source = replace(source, folder=path.absolute(), location=str(path.absolute()))  # the process may move
        else:
            source = _from_hub(str(model), revision, trust_remote_code, model_class)
    except OSError as error:  # a name in its files that is too long, a folder that may not be read
        raise SourceError(f"{model}: cannot be read: {error}\nGet a complete copy of the model.") from error
    source = replace(source, allow_changed=allow_changed, tasks=tuple(dict.fromkeys(tasks)))
    if model_class not in (None, source.model_class.name):
        raise UnsupportedOptionError(
            f"model_class={model_class!r}: {source.name} is a {source.model_class.name}, and says so itself (the "
            "option is for checkpoints without files of sentence-transformers).\nLeave it out."
        )
    return source if pooling is None else _pooled(source, pooling)


def _pooled(source: Source, mode: str) -> Source:
    """The source with another pooling.

    Raises:
        UnsupportedOptionError: for a mode that is not known, or where the model has a chain of its own.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    *before, last = source.modules
    if source.live is not None or last.path or last.type != POOLING:
        raise UnsupportedOptionError(
            f"pooling={mode!r}: {source.name} is a {source.model_class.name} with a chain of its own (the option is "
            "for embedding models without files of sentence-transformers).\nLeave it out."
        )
    if mode not in Pooling.POOLING_MODES:
        raise UnsupportedOptionError(
            f"pooling={mode!r}: not known (have: {', '.join(Pooling.POOLING_MODES)}).\nChoose one of these."
        )
    chain = (*before, replace(last, settings={"pooling_mode": mode}))
    return replace(source, modules=chain, notes=(f"{BARE}, with {mode} pooling as asked for.",), pooling=mode)


def _from_live(model: Any) -> Source:
    model_class = class_of(model)
    if model_class is None:
        have = ", ".join(dict.fromkeys(row.library for row in MODEL_CLASSES.values()))
        raise SourceError(
            f"{type(model).__module__}.{type(model).__name__} is not a model sbertconv converts "
            f"(have: a Hub id, a folder, {have}).\nPass one of these."
        )
    specs = tuple(
        ModuleSpec(label, type_name(type(module)), "", module_settings(module)) for label, module in live_modules(model)
    )
    name = model.model_card_data.base_model or "model"
    return Source(name, None, None, None, False, specs, {}, model_class, live=model)


def module_settings(module: Any) -> Mapping[str, Any]:
    """A live module's own settings, as it would save them: a router's pairs of task and modality are texts there."""
    describe = getattr(module, "get_config_dict", None)
    settings = dict(describe()) if callable(describe) else {}
    pairs = settings.get("route_mappings") or {}
    return {**settings, "route_mappings": {str(pair): route for pair, route in pairs.items()}} if pairs else settings


def _from_hub(name: str, revision: str | None, trust_remote_code: bool, model_class: str | None) -> Source:
    from huggingface_hub import constants

    candidates = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    reason: Exception | None = None
    for candidate in candidates:
        try:
            folder = description_on_hub(candidate, revision)
        except SbertconvError:
            raise
        except Exception as error:
            reason = error
        else:
            return _from_folder(folder, candidate, candidate, folder.name, trust_remote_code, model_class)
    at = f" at revision {revision}" if revision else ""
    if constants.HF_HUB_OFFLINE:
        raise SourceError(
            f"{name}: no such folder, and no such model{at} in the Hub's cache on this machine, while HF_HUB_OFFLINE "
            f"keeps it from asking for it.{like(name)}\n"
            "Check the spelling and the revision, unset HF_HUB_OFFLINE where there is a connection, or pass a folder."
        ) from reason
    raise SourceError(
        f"{name}: no such folder, and the Hub does not give it{at}: {error_text(reason, 3)}{like(name)}\n"
        "Check the spelling, the revision and the connection, or pass a folder."
    ) from reason


def _offline() -> Iterator[tuple[Any, str, Any]]:
    from huggingface_hub import constants

    yield constants, "HF_HUB_OFFLINE", True


_fetching_nothing = Replaced(_offline)  # in here, nothing asks the Hub for anything, whatever a file of a model names


def _from_folder(
    folder: Path, name: str, location: str, revision: str | None, trust_remote_code: bool, wanted: str | None
) -> Source:
    local = revision is None
    if not folder.is_dir():
        raise SourceError(f"{folder}: is a file, not a model folder.\nPass the folder that holds modules.json.")
    has_modules, has_config = (is_there(folder / name) for name in ("modules.json", "config.json"))
    is_adapter = not (has_modules or has_config) and is_there(folder / ADAPTER_CONFIG)
    if not (has_modules or has_config or is_adapter):
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise SourceError(
            f"{folder}: not a model folder: neither modules.json nor config.json (found: {inside}).\n"
            "Pass the folder that SentenceTransformer.save_pretrained wrote."
        )
    check_entries(folder)
    problems: list[str] = []
    settings_file = folder / "config_sentence_transformers.json"
    settings = read_json(settings_file) if is_there(settings_file) else {}
    config: Mapping[str, Any] = {} if has_modules else _bare_config(folder, is_adapter)
    model_class = _recognised(folder, settings, config, wanted)
    if has_modules:
        specs = tuple(itertools.islice(read_modules(folder), MOST_MODULES + 1))
        if len(specs) > MOST_MODULES:
            raise SourceError(
                f"{folder / 'modules.json'}: more than {MOST_MODULES} modules, those of routers counted.\n"
                "Do not use this model."
            )
        notes: tuple[str, ...] = ()
        if settings.get("model_type") in model_class.also:
            specs, notes = (
                (*specs, *TOKEN_MODULES),
                ("Saved by PyLate: converted with what MultiVectorEncoder adds to it.",),
            )
    else:
        specs, notes = CLASS_SOURCES[model_class.name].chain(config)
        notes = (*notes, f"An adapter, converted with its base {config['_name_or_path']}.") if is_adapter else notes
    if model_class.name == "SentenceTransformer" and (heads := heads_in(folder)):
        files = " and ".join(HEAD_FILES[name] for name in heads)
        notes = (*notes, f"{files} beside it: {' and '.join(heads)} are given where outputs= asks for them.")
    if unread := unread_weights(folder):
        notes = (*notes, f"No module reads {', '.join(unread)}: what they are for is not converted.")
    if local:
        for spec in specs:
            problems += missing_files(folder, spec)
    if problems:
        advice = "Get a complete copy of it."
        if (folder / MANIFEST).is_file():
            advice = "sbertconv wrote it: pass the model that it was made from."
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise SourceError(f"{name}: the model is incomplete:\n{listed}\n{advice}")
    return Source(name, folder, location, revision, trust_remote_code, specs, settings, model_class, notes)


def _bare_config(folder: Path, is_adapter: bool) -> Mapping[str, Any]:
    """The config.json of a plain transformers checkpoint, or of the base of an adapter.

    Raises:
        SourceError: if there is no PEFT, or the adapter does not say what its base is.
    """
    check_preprocessing(folder)
    settings = read_settings(folder)
    if not is_adapter:
        return settings[CONFIG]
    adapter = read_adapter(folder / ADAPTER_CONFIG)
    base = adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SourceError(f"{folder / ADAPTER_CONFIG}: no base_model_name_or_path.\n{COPY}")
    if missing_packages("peft"):
        raise SourceError(
            f"{folder}: an adapter ({adapter.get('peft_type')}) for {base}, which needs the package peft.\n"
            "Install peft, or merge the adapter into its base and save that."
        )
    found = base_of(folder)
    config = {} if found is None else read_settings(found).get(CONFIG, {})
    return {**config, "_name_or_path": base}


def _recognised(folder: Path, settings: Mapping[str, Any], config: Mapping[str, Any], wanted: str | None) -> ModelClass:
    """The class that the files say: older files of sentence-transformers do not, and are all of its first one. A bare
    checkpoint may be read as another.
    """
    chosen = None if wanted is None else class_named(wanted, f"model_class={wanted!r}", UnsupportedOptionError)
    if not config or "model_type" in settings:
        return class_named(settings.get("model_type", "SentenceTransformer"), folder)
    if chosen is None:
        return next(row for row in MODEL_CLASSES.values() if CLASS_SOURCES[row.name].claims(config))
    if not CLASS_SOURCES[chosen.name].takes(config):
        have = ", ".join(name for name, kind in CLASS_SOURCES.items() if kind.takes(config))
        raise UnsupportedOptionError(
            f"model_class={wanted!r}: {folder} holds a {architecture(config) or 'model without a head'} "
            f"(have: {have}).\nChoose one of these, or leave it out."
        )
    return chosen
