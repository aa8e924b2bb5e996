"""Cosines between rollouts, and distances made of them."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from clipo_ops._groups import GroupLayout
from clipo_ops._numerics import at_least_float32

_NULL_SQUARE = 1e-12  # an embedding of norm below 1e-6 has no direction: similarity 0, no gradient


_LEAST_SQUARE = 1e-8  # as the official code; the slope of a root at 0 is infinite


def group_cosines(
    embeddings: Tensor, layout: GroupLayout, rows: Tensor | None = None
) -> Shaped[Tensor, "groups slots slots"] | Shaped[Tensor, "rows slots"]:
    """The cosines between the rollouts of each group, in at least float32; 0 with a vector of norm below 1e-6.

    Given the numbers of some slots, counted row by row, only the cosines of these with their groups.
    """
    cosines: Tensor = _GroupCosines.apply(at_least_float32(embeddings), layout, rows)  # type: ignore[no-untyped-call]
    return cosines


def inverse_norms(vectors: Tensor) -> Shaped[Tensor, "rollouts 1"]:
    """What to multiply vectors with to make their length one; 0 for one of norm below 1e-6."""
    return _inverse_norm(torch.linalg.vector_norm(vectors, dim=1, keepdim=True).square())


def negative_distances(cosines: Tensor, similarity: str) -> Tensor:
    """Similarity - 1: of cosines, or minus the length of the difference of two vectors of length one."""
    if similarity == "cosine":
        return cosines - 1
    return -(2 - 2 * cosines).clamp(min=_LEAST_SQUARE).sqrt()


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


class _GroupCosines(torch.autograd.Function):
    """`group_cosines` with a gradient of one product, where autograd takes two: products of vectors are symmetric.

    Everything else happens on matrices of slots x slots. Backward lays the embeddings out again: that is cheaper than
    keeping a copy of them.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, layout: GroupLayout, rows: Tensor | None) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = layout.gather(embeddings)
            cosines = vectors @ vectors.mT
        itself = torch.arange(cosines.shape[1], device=cosines.device) * (cosines.shape[1] + 1)
        scale = _inverse_norm(cosines.flatten(1).index_select(1, itself))  # Inductor 2.13 errs on `diagonal`, a view
        cosines.mul_(scale.unsqueeze(2)).mul_(scale.unsqueeze(1))
        ctx.ordered = layout.ordered
        ctx.save_for_backward(embeddings, layout.members, layout.valid, layout.position, rows, cosines, scale)
        return cosines if rows is None else cosines.flatten(0, 1).index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        embeddings, members, valid, position, rows, cosines, scale = ctx.saved_tensors
        (slope,) = grads
        if rows is not None:
            slope = torch.zeros_like(cosines.flatten(0, 1)).index_copy_(0, rows, slope).view_as(cosines)
        slope = slope + slope.mT
        along = (slope * cosines).sum(2)  # the length of a vector does not matter
        slope.mul_(scale.unsqueeze(2)).mul_(scale.unsqueeze(1))
        slope.diagonal(dim1=1, dim2=2).addcmul_(along, scale.square(), value=-1)
        layout = GroupLayout(members, valid, position, ctx.ordered)
        vectors = layout.gather(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            slots = slope @ vectors
        if layout.ordered:
            return layout.scatter(slots), None, None
        spent = vectors.flatten(0, 1).narrow(0, 0, len(embeddings))  # as large as the result, and needed no more
        return torch.index_select(slots.flatten(0, 1), 0, position, out=spent), None, None
