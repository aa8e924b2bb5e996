"""Cosines between rollouts, and distances made of them."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from clipo_ops._groups import GroupLayout
from clipo_ops._typing import at_least_float32

_NULL_SQUARE = 1e-12  # an embedding of norm below 1e-6 has no direction: similarity 0, no gradient
_LEAST_SQUARE = 1e-8  # as the official code; the slope of a root at 0 is infinite


def group_cosines(embeddings: Tensor, layout: GroupLayout) -> Shaped[Tensor, "groups slots slots"]:
    """The cosines between the rollouts of each group, in at least float32; 0 with a vector of norm below 1e-6."""
    gram: Tensor = _GroupGram.apply(at_least_float32(embeddings), layout)  # type: ignore[no-untyped-call]
    scale = _inverse_norm(gram.diagonal(dim1=1, dim2=2))
    return gram * scale.unsqueeze(2) * scale.unsqueeze(1)


def inverse_norms(vectors: Tensor) -> Shaped[Tensor, "rollouts 1"]:
    """What to multiply vectors with to make their length one; 0 for one of norm below 1e-6."""
    return _inverse_norm(torch.linalg.vector_norm(vectors, dim=1, keepdim=True).square())


def distances(cosines: Tensor, similarity: str) -> Tensor:
    """1 - similarity: of cosines, or the length of the difference of two vectors of length one."""
    if similarity == "cosine":
        return 1 - cosines
    return (2 - 2 * cosines).clamp(min=_LEAST_SQUARE).sqrt()


def _inverse_norm(square: Tensor) -> Tensor:
    null = square <= _NULL_SQUARE
    return torch.where(null, 0, torch.where(null, 1, square).rsqrt())


def success_pairs(success: Tensor, layout: GroupLayout) -> tuple[Tensor, Tensor, Tensor]:
    """`right` and `wrong` slots, and the pairs of slots that hold two different rollouts."""
    laid_out = layout.gather(success)
    slot = torch.arange(layout.valid.shape[1], device=success.device)
    different = slot.unsqueeze(1) != slot
    if layout.ordered:  # no slot is empty
        return laid_out, laid_out.logical_not(), different.expand(len(laid_out), -1, -1)
    pairs = layout.valid.unsqueeze(2) & layout.valid.unsqueeze(1) & different
    return laid_out & layout.valid, laid_out.logical_not() & layout.valid, pairs


class _GroupGram(torch.autograd.Function):
    """Dot products between the rollouts of each group.

    The result is symmetric, so its gradient takes one product instead of autograd's two. Backward lays the embeddings
    out again: that is cheaper than keeping a copy of them.
    """

    @staticmethod
    def forward(embeddings: Tensor, layout: GroupLayout) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = layout.gather(embeddings)
            return rows @ rows.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, GroupLayout], output: Tensor) -> None:
        embeddings, layout = inputs
        ctx.ordered = layout.ordered
        ctx.save_for_backward(embeddings, layout.members, layout.valid, layout.position)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        embeddings, members, valid, position = ctx.saved_tensors
        layout = GroupLayout(members, valid, position, ctx.ordered)
        rows = layout.gather(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            slots = (grads[0] + grads[0].mT) @ rows
        if layout.ordered:
            return layout.scatter(slots), None
        spent = rows.flatten(0, 1).narrow(0, 0, len(embeddings))  # as large as the result, and needed no more
        return torch.index_select(slots.flatten(0, 1), 0, position, out=spent), None
