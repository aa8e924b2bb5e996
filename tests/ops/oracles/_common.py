"""What the oracles share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Row = Sequence[float]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def members(groups: Tensor) -> list[list[int]]:
    """The rollouts of each group, in ascending order of id."""
    ids = groups.tolist()
    return [[i for i, own in enumerate(ids) if own == one] for one in sorted(set(ids))]


def chosen(values: Row, mask: Sequence[bool]) -> list[float]:
    return [value for value, counts in zip(values, mask, strict=True) if counts]
