"""Losses of rollouts against all others, a tile of rows at a time.

Of the rollouts x rollouts matrix only a tile of `ROWS` rows exists at any time, in backward too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from clipo_ops._kernels.gram import inverse_norms
from clipo_ops._numerics import at_least_float32

ROWS = 128


# Cosines of some rows with all columns, and the numbers of these rows -> their losses.
RowLosses: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def readable_rows(active: Tensor) -> Tensor | None:
    """The numbers of active rows where finding them makes nobody wait: on a CPU, outside `torch.compile`."""
    if torch.compiler.is_compiling() or active.device.type != "cpu" or type(active) is not Tensor:
        return None  # the last is a fake one, which has no contents
    return active.nonzero().squeeze(1)


def tiled_losses(
    embeddings: Tensor, row_losses: RowLosses, order: Tensor | None, objective: object, *, total: bool
) -> Tensor:
    """The losses that come of each row of cosines between all embeddings, or their sum.

    Given the numbers of some rows, only these are computed; the others have loss 0.

    The sum has its gradient computed along with it, tile by tile, and kept: as much memory as the embeddings. The
    gradient of single losses is not known before their weights are, so backward does the tiles anew, with the same
    random numbers. Compiled, both do.
    """
    vectors = at_least_float32(embeddings)
    if order is None:
        order = torch.arange(len(vectors), device=vectors.device)
    if torch.compiler.is_compiling():
        units = vectors * inverse_norms(vectors)
        each = torch.cat(
            [
                checkpoint(partial(_tile, row_losses=row_losses, rows=rows), units, use_reentrant=False)
                for rows in _split(order)
            ]
        )
        return each.sum() if total else each
    result: Tensor
    if total:
        result = _Total.apply(vectors, order, row_losses)  # type: ignore[no-untyped-call]
    else:
        generators = _generators(objective, vectors.device)
        result = _Each.apply(vectors, order, row_losses, generators)  # type: ignore[no-untyped-call]
    return result


def _split(order: Tensor) -> list[Tensor]:
    """Every tile's rows. Only compares their number, so that a dynamic graph serves every number within a tile."""
    starts = [0]
    while starts[-1] + ROWS < len(order):
        starts.append(starts[-1] + ROWS)
    return [order.narrow(0, start, min(ROWS, len(order) - start)) for start in starts]


def _tile(units: Tensor, row_losses: RowLosses, rows: Tensor) -> Tensor:
    with torch.autocast(units.device.type, enabled=False):
        return row_losses(units.index_select(0, rows) @ units.mT, rows)


def _all_tiles(vectors: Tensor, order: Tensor, row_losses: RowLosses) -> Tensor:
    units = vectors * inverse_norms(vectors)
    return _placed([_tile(units, row_losses, rows) for rows in _split(order)], order, len(units))


def _with_gradient(vectors: Tensor, order: Tensor, row_losses: RowLosses, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The losses, and the gradient of their weighted sum."""
    scale = inverse_norms(vectors)
    units = vectors * scale
    losses, gradient = [], torch.zeros_like(units)
    with torch.autocast(units.device.type, enabled=False):
        for rows in _split(order):
            anchors = units.index_select(0, rows)
            cosines = (anchors @ units.mT).requires_grad_()
            with torch.enable_grad():
                loss = row_losses(cosines, rows)
            (slope,) = torch.autograd.grad(loss, cosines, weights.index_select(0, rows))
            losses.append(loss.detach())
            del loss, cosines
            gradient.index_add_(0, rows, slope @ units)
            gradient.addmm_(slope.mT, anchors)
        along = torch.linalg.vecdot(gradient, units).unsqueeze(1)  # the length of a vector does not matter
    gradient.addcmul_(units, along, value=-1).mul_(scale)
    return _placed(losses, order, len(units)), gradient


def _placed(losses: list[Tensor], order: Tensor, rows: int) -> Tensor:
    each = torch.cat(losses)
    return each.new_zeros(rows).index_copy_(0, order, each)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, order: Tensor, row_losses: RowLosses) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return _all_tiles(vectors, order, row_losses).sum()
        losses, gradient = _with_gradient(vectors, order, row_losses, vectors.new_ones(len(vectors)))
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, order: Tensor, row_losses: RowLosses, generators: list[torch.Generator]
    ) -> Tensor:
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(vectors, order)
            ctx.row_losses = row_losses
            ctx.states = [(generator, generator.get_state()) for generator in generators]
        return _all_tiles(vectors, order, row_losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        vectors, order = ctx.saved_tensors
        with _replayed(ctx.states):
            return _with_gradient(vectors, order, ctx.row_losses, grads[0])[1], None, None, None


def _generators(objective: object, device: torch.device) -> list[torch.Generator]:
    """Where an objective may draw from: the device's default generator, and those bound by `functools.partial`."""
    bound: list[object] = []
    if isinstance(objective, partial):
        bound = [*objective.args, *objective.keywords.values()]
    if device.type == "cpu":
        default = [torch.default_generator]
    else:
        default = list(getattr(torch.get_device_module(device), "default_generators", ()))[device.index :][:1]
    return default + [value for value in bound if isinstance(value, torch.Generator)]


@contextmanager
def _replayed(states: list[tuple[torch.Generator, Tensor]]) -> Iterator[None]:
    """Generators give again what they gave after these states; afterwards they go on where they were."""
    now = [(generator, generator.get_state()) for generator, _ in states]
    try:
        for generator, state in states:
            generator.set_state(state)
        yield
    finally:
        for generator, state in now:
            generator.set_state(state)
