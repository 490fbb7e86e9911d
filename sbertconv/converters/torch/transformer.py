"""Transformer and CLIPModel: the transformers model, through the module's own forward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.converters.causal import FewLogits, entries_read
from sbertconv.converters.checks import check_transformer
from sbertconv.plan.context import Context, Features, Step


def convert_transformer(module: torch.nn.Module, context: Context) -> Step:
    """The transformers model under its module's own dispatch (method, output path, hidden states).

    Raises:
        UnsupportedOptionError: see `check_transformer`.
    """
    from sbertconv.converters.torch.splade_pooling import head_to_pool

    check_transformer(module, context)
    entries = entries_read(module, context)
    if entries:
        return FewLogits(module, entries)
    return TransformerStep(module, context.modality, head_to_pool(module, context))


class TransformerStep(torch.nn.Module):
    """Says which modality the tensors are, as `preprocess` does, and runs the module's forward.

    Args:
        module: the module of sentence-transformers.
        modality: "text", "image" or "audio".
        head: the last layer, if the step behind this one runs it.
    """

    def __init__(self, module: torch.nn.Module, modality: str, head: torch.nn.Linear | None = None) -> None:
        super().__init__()
        self.heads = () if head is None else (head,)  # no weights of its own: they are the model's
        self.model = module.model
        self.dispatch = module.forward
        self.modality = modality

    def forward(self, features: Features) -> Features:
        taken = {name: tensor for name, tensor in features.items() if name != IS_QUERY}  # which is not the library's
        with contextlib.ExitStack() as stack:
            for head in self.heads:
                stack.enter_context(left_out(head))
            found = {**features, **self.dispatch({**taken, "modality": self.modality})}
        if "token_embeddings" in found:
            found["last_hidden_state"] = found["token_embeddings"]  # which later modules replace
        return found


@contextlib.contextmanager
def left_out(layer: torch.nn.Module) -> Iterator[None]:
    """A layer that gives what it takes."""
    layer.forward = lambda given: given
    try:
        yield
    finally:
        del layer.forward
