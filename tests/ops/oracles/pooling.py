"""Hidden states to one vector."""

from collections.abc import Callable

from torch import Tensor

from ._common import chosen, mean, tensor


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, mean)


def last_token_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, lambda values: values[-1] if values else 0.0)


def _pool(hidden: Tensor, mask: Tensor, to_one: Callable[[list[float]], float]) -> Tensor:
    rollouts = zip(hidden.transpose(1, 2).tolist(), mask.tolist(), strict=True)
    return tensor([[to_one(chosen(column, row)) for column in columns] for columns, row in rollouts])
