"""Cosines within groups, with a gradient of one matrix product where autograd takes two."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import GroupLayout
from clipo_ops._numerics import at_least_float32

_NULL_SQUARE = 1e-12  # an embedding of norm below 1e-6 has no direction: similarity 0, no gradient


def group_cosines(embeddings: Tensor, layout: GroupLayout) -> Float[Tensor, "groups slots slots"]:
    """The cosines between the rollouts of each group, in at least float32; 0 with a vector of norm below 1e-6.

    The matrix of products is normalised rather than the vectors, so that no copy of them is needed.
    """
    products: Tensor = _Gram.apply(layout.gather(at_least_float32(embeddings)))  # type: ignore[no-untyped-call]
    itself = torch.eye(products.shape[-1], dtype=torch.bool, device=products.device)
    scale = _inverse_root(torch.where(itself, products, 0).sum(-1))
    return products * scale.unsqueeze(2) * scale.unsqueeze(1)


def inverse_norms(vectors: Tensor) -> Float[Tensor, "rollouts 1"]:
    """What to multiply vectors with to make their length one; 0 for one of norm below 1e-6."""
    return _inverse_root(vectors.square().sum(1, keepdim=True))


def _inverse_root(squares: Tensor) -> Tensor:
    null = squares <= _NULL_SQUARE
    return squares.masked_fill(null, 1).rsqrt().masked_fill(null, 0)


def success_pairs(
    success: Tensor, layout: GroupLayout
) -> tuple[Bool[Tensor, "groups slots"], Bool[Tensor, "groups slots"], Bool[Tensor, "groups slots slots"]]:
    """Correct slots, incorrect slots, and the pairs of slots that hold two different rollouts."""
    valid, verdict = layout.valid, layout.gather(success)
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=success.device)
    pairs = valid.unsqueeze(2) & valid.unsqueeze(1) & itself.logical_not()
    return verdict & valid, verdict.logical_not() & valid, pairs


class _Gram(torch.autograd.Function):
    """`vectors @ vectors.mT`. Both factors being one tensor, the two products of its gradient are one."""

    @staticmethod
    def forward(vectors: Tensor) -> Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            return vectors @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        with torch.autocast(vectors.device.type, enabled=False):
            gradient: Tensor = (grads[0] + grads[0].mT) @ vectors
        return gradient
