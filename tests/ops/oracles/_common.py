"""What the oracles share."""

import math
import statistics
from collections.abc import Callable, Sequence

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


def scored(rewards: Tensor, groups: Tensor) -> list[list[int]]:
    """The rollouts of each group that have a reward."""
    values = rewards.tolist()
    return [[i for i in group if not math.isnan(values[i])] for group in members(groups)]


def less(rewards: Tensor, groups: Tensor, baseline: Callable[[int, list[int]], float]) -> list[float]:
    """Each reward less its baseline, given the rollout and its group; exactly 0 in a constant group."""
    values = rewards.tolist()
    advantages = [0.0] * len(values)
    for group in scored(rewards, groups):
        if len({values[i] for i in group}) > 1:
            for i in group:
                advantages[i] = values[i] - baseline(i, group)
    return advantages


def standard_scores(rewards: Tensor, groups: Tensor, eps: float) -> list[float]:
    values = rewards.tolist()
    scores = less(rewards, groups, lambda i, group: statistics.mean(values[j] for j in group))
    for group in scored(rewards, groups):
        if len(group) > 1:
            deviation = statistics.stdev(values[i] for i in group)
            for i in group:
                scores[i] = scores[i] / (deviation + eps) if scores[i] else 0.0
    return scores
