"""Losses of rollouts against all others, a tile of rows at a time.

Only one tile of the rollouts x rollouts matrix exists at any time; the backward pass recomputes each tile.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from clipo_ops._kernels.gram import inverse_norms
from clipo_ops._numerics import at_least_float32

BUDGET = 2**26  # bytes of a tile's cosines; an objective and its gradient take several times as much


# Cosines of some rows with all columns, and the numbers of these rows -> the rows' losses.
RowLosses: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def tiled_losses(embeddings: Tensor, row_losses: RowLosses) -> Tensor:
    """`row_losses` of the cosines between all embeddings, in at least float32."""
    vectors = at_least_float32(embeddings)
    units = vectors * inverse_norms(vectors)
    columns = len(units)
    rows = max(1, BUDGET // (units.element_size() * max(1, columns)))
    tiles = zip(units.split(rows), torch.arange(columns, device=units.device).split(rows), strict=True)
    return torch.cat([_recomputed(partial(_tile, row_losses), anchors, units, numbers) for anchors, numbers in tiles])


def _tile(row_losses: RowLosses, anchors: Tensor, units: Tensor, numbers: Tensor) -> Tensor:
    cosines: Tensor = _Products.apply(anchors, units)  # type: ignore[no-untyped-call]
    return row_losses(cosines, numbers)


def _recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """A function's result, whose backward runs the function anew and draws the same random numbers in it.

    `checkpoint` itself replays the default generators; others are noticed where they are drawn from.
    """
    contexts: dict[str, Any] = {}
    if not torch.compiler.is_compiling():
        seen = _SeenGenerators()
        contexts["context_fn"] = lambda: (seen, _Replayed(seen.states))
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, **contexts)
    return result


class _Products(torch.autograd.Function):
    """`rows @ columns.mT`, in full precision under autocast, in backward too."""

    @staticmethod
    def forward(rows: Tensor, columns: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ columns.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):
            return grads[0] @ columns, grads[0].mT @ rows


class _SeenGenerators(TorchDispatchMode):
    """Keeps the state of every generator as it was before the first draw from it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.states: dict[Generator, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, Generator) and value not in self.states:
                self.states[value] = value.get_state()
        return func(*args, **(kwargs or {}))


class _Replayed:
    """Sets generators back to earlier states; afterwards they go on where they were."""

    def __init__(self, states: dict[Generator, Tensor]) -> None:
        self.states = states

    def __enter__(self) -> None:
        self.now = {generator: generator.get_state() for generator in self.states}
        _set(self.states)

    def __exit__(self, *error: object) -> None:
        _set(self.now)


def _set(states: dict[Generator, Tensor]) -> None:
    for generator, state in states.items():
        generator.set_state(state)
