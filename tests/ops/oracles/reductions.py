"""Token values to one number."""

import math

from torch import Tensor

from ._common import chosen, mean, tensor


def aggregate(values: Tensor, mask: Tensor, *, mode: str = "token-mean", denominator: float | None = None) -> Tensor:
    rows = [chosen(*row) for row in zip(values.tolist(), mask.tolist(), strict=True)]
    of_row = mean if mode == "seq-mean-token-mean" else math.fsum
    if denominator is None:
        denominator = aggregate_denominator(mask, mode=mode).item()
    return tensor(math.fsum(of_row(row) for row in rows) / denominator)


def aggregate_denominator(mask: Tensor, *, mode: str = "token-mean", max_length: int = 1) -> Tensor:
    lengths = [sum(row) for row in mask.tolist()]
    rollouts = sum(length > 0 for length in lengths)
    count = sum(lengths) if mode == "token-mean" else rollouts
    return tensor(max(1, count) * (max_length if mode == "seq-mean-token-sum-norm" else 1))
