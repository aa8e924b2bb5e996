"""Several rewards to one."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from ._common import tensor
from .advantages import less, scored


def informative_groups(rewards: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    informative = [False] * len(values)
    for group in scored(rewards, groups):
        for i in group:
            informative[i] = len({values[j] for j in group}) > 1
    return torch.tensor(informative)


def combine_rewards(
    rewards: Tensor,
    groups: Tensor,
    *,
    weights: Sequence[float] | None = None,
    method: str = "sum",
    eps: float = 1e-6,
) -> Tensor:
    columns = [column.tolist() for column in rewards.unbind(1)]
    if method == "gdpo":
        parts = [standard_scores(column, groups, eps) for column in rewards.unbind(1)]
    else:
        parts = [[0.0 if math.isnan(value) else value for value in column] for column in columns]
    factors = weights or [1.0] * len(parts)
    totals = [math.fsum(w * part[i] for w, part in zip(factors, parts, strict=True)) for i in range(len(rewards))]
    absent = [all(math.isnan(column[i]) for column in columns) for i in range(len(rewards))]
    return tensor([math.nan if missing else total for missing, total in zip(absent, totals, strict=True)])


def standard_scores(rewards: Tensor, groups: Tensor, eps: float) -> list[float]:
    values = rewards.tolist()
    scores = less(rewards, groups, lambda i, group: statistics.mean(values[j] for j in group))
    for group in scored(rewards, groups):
        if len(group) > 1:
            deviation = statistics.stdev(values[i] for i in group)
            for i in group:
                scores[i] = scores[i] / (deviation + eps) if scores[i] else 0.0
    return scores


def gdpo_advantages(
    rewards: Tensor, groups: Tensor, *, weights: Sequence[float] | None = None, eps: float = 1e-6
) -> Tensor:
    scores = combine_rewards(rewards, groups, weights=weights, method="gdpo", eps=eps).tolist()
    known = [score for score in scores if not math.isnan(score)]
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    centre = statistics.mean(known) if known else 0.0
    return tensor([(s - centre) / (deviation + eps) if s in known and deviation else 0.0 for s in scores])


def best_wrong(i: int, rewards: Tensor, success: Tensor, groups: Tensor) -> float:
    (group,) = (group for group in scored(rewards, groups) if i in group)
    return max((rewards[j].item() for j in group if not success[j]), default=-math.inf)


def guarded_rewards(rewards: Tensor, success: Tensor, groups: Tensor, *, margin: float = 0.0) -> Tensor:
    values = rewards.tolist()
    for i, value in enumerate(values):
        if success[i] and not math.isnan(value):
            values[i] = max(value, best_wrong(i, rewards, success, groups) + margin)
    return tensor(values)


def reward_inversions(rewards: Tensor, success: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    return torch.tensor(
        [
            bool(success[i]) and not math.isnan(value) and value < best_wrong(i, rewards, success, groups)
            for i, value in enumerate(values)
        ]
    )
