"""The fallback: a module's own forward is the step, and tracing the chain traces it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import torch

from sbertconv.converters.complex_numbers import traceable_complex_numbers
from sbertconv.converters.exporting import exported
from sbertconv.converters.grids import traceable_grids
from sbertconv.converters.patches import traceable_patches
from sbertconv.converters.scans import traceable_scans
from sbertconv.converters.sizes import traceable_sizes
from sbertconv.errors import UnsupportedModuleError, error_text
from sbertconv.plan.context import Context, Features, Step
from sbertconv.source.torch_compat import FakeTensor, own_buffers
from sbertconv.source.transformers_compat import chooses_experts
from sbertconv.source.widening import stand_ins

NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"  # read by transformers at every check
PLACEHOLDERS = (FakeTensor, torch.SymInt, torch.SymFloat, torch.SymBool)  # of a tracer, for numbers it does not have


def convert_traced(module: torch.nn.Module, context: Context) -> Step:
    """The module as it is. For modules whose forward consists of traceable tensor operations only."""
    return TracedStep(module, context) if "task" in getattr(module, "forward_kwargs", ()) else module


def convert_unknown(module: torch.nn.Module, context: Context) -> Step:
    """A module without a converter of its own: traced alone first, so that its plan can say whether that works.

    Raises:
        UnsupportedModuleError: if it cannot be traced.
    """
    step = convert_traced(module, context)
    if context.modality == "text" and (reason := why_not_traceable(step, context.walk.features(module))):
        raise UnsupportedModuleError(reason)
    return step


class TracedStep(torch.nn.Module):
    """Calls a sentence-transformers module on the features, with the task if its forward wants it."""

    def __init__(self, module: torch.nn.Module, context: Context) -> None:
        super().__init__()
        self.module = module
        wanted: set[str] = getattr(module, "forward_kwargs", set())
        self.options = {"task": context.task} if "task" in wanted else {}

    def forward(self, features: Features) -> Features:
        result: Features = self.module(features, **self.options)
        return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Tracers and exporters report their own progress and workarounds; what is wrong shows up as an error or in
    the parity.
    """
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Put back what a trace leaves in a module. A forward that keeps a buffer or an attribute of its own (rotary
    frequencies by length, caches) keeps the tracer's placeholder there, which breaks whatever runs or traces it next.
    Everything else that a first forward sets up stays, such as hooks and the mark that they are there.
    """
    before = [(part, dict(vars(part)), dict(own_buffers(part))) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes, buffers in before:
            for now, then in ((part.__dict__, attributes), (own_buffers(part), buffers)):
                for name in [name for name, value in now.items() if isinstance(value, PLACEHOLDERS)]:
                    del now[name]
                    now.update({name: then[name]} if name in then else {})


@contextlib.contextmanager
def traceable(module: torch.nn.Module) -> Iterator[None]:
    """A module in the forms of its operations that a trace keeps open."""
    with (
        traceable_experts(module),
        traceable_scans(module),
        traceable_sizes(module),
        traceable_complex_numbers(module),
        traceable_patches(module),
        traceable_grids(module),
        _dtypes_settled(),
        _without_checks(),
    ):
        yield


@contextlib.contextmanager
def _without_checks() -> Iterator[None]:
    """While tracing, models do not ask their data whether it is what they expect: graphs have no room for the question,
    and the comparison answers it.
    """
    before = os.environ.get(NO_CHECKS)
    os.environ[NO_CHECKS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_CHECKS]
        else:
            os.environ[NO_CHECKS] = before


@contextlib.contextmanager
def _dtypes_settled() -> Iterator[None]:
    """While tracing, a module in the dtype that it is moved to stays as it is: PyTorch would put other weights in their
    places, which no trace can.
    """
    move = torch.nn.Module.to

    def moved(module: torch.nn.Module, *args: object, **options: object) -> torch.nn.Module:
        settled = len(args) == 1 and not options and all(weight.dtype == args[0] for weight in module.parameters())
        return module if settled else move(module, *args, **options)

    torch.nn.Module.to = moved
    try:
        yield
    finally:
        torch.nn.Module.to = move


@contextlib.contextmanager
def traceable_experts(module: torch.nn.Module) -> Iterator[None]:
    """Mixture-of-experts layers as batched matrix products while tracing: their default sorts tokens by
    expert, whose counts are data that a trace would freeze.
    """
    owners = [m for m in module.modules() if chooses_experts(m)]
    before = [owner.get_experts_implementation() for owner in owners]
    try:
        for owner in owners:
            owner.set_experts_implementation("batched_mm")
        yield
    finally:
        for owner, implementation in zip(owners, before, strict=True):
            owner.set_experts_implementation(implementation)


class OnTensors(torch.nn.Module):
    """A step on the tensors among some features, which is what torch.export can trace."""

    def __init__(self, step: Step, features: Features) -> None:
        super().__init__()
        self.step = step
        self.features = features
        self.names = [name for name, value in features.items() if isinstance(value, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        result = self.step({**self.features, **dict(zip(self.names, tensors, strict=True))})
        return [value for value in result.values() if isinstance(value, torch.Tensor)]


def why_not_traceable(step: Step, features: Features) -> str | None:
    """The reason why a step cannot be traced on these features, or None if it can."""
    traced = OnTensors(step, features)
    try:
        with quiet(), unchanged(traced), stand_ins(traced):
            exported(traced, tuple(features[name] for name in traced.names), shapes=None)
    except Exception as error:
        return error_text(error)
    return None
