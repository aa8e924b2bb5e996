"""Advantages."""

import itertools
import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ._common import mean, members, tensor


def grpo_advantages(rewards: Tensor, groups: Tensor, *, scale: str = "group", eps: float = 1e-6) -> Tensor:
    values = rewards.tolist()
    advantages = [0.0] * len(values)
    for group in members(groups):
        own = [values[i] for i in group]
        spread = {"group": own, "batch": values, "none": []}[scale]
        deviation = statistics.stdev(spread) + eps if len(spread) > 1 else 1.0
        for i in group:
            difference = 0.0 if len(set(own)) == 1 else values[i] - statistics.mean(own)
            advantages[i] = difference / deviation if difference else 0.0
    return tensor(advantages)


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


def rloo_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    return tensor(less(rewards, groups, lambda i, group: mean([values[j] for j in group if j != i])))


def opo_advantages(rewards: Tensor, lengths: Tensor, groups: Tensor) -> Tensor:
    values, sizes = rewards.tolist(), lengths.tolist()

    def baseline(i: int, group: list[int]) -> float:
        total = sum(sizes[j] for j in group)
        return math.fsum(sizes[j] * values[j] for j in group) / total if total else values[i]

    return tensor(less(rewards, groups, baseline))


def maxrl_advantages(rewards: Tensor, groups: Tensor, *, eps: float = 1e-6) -> Tensor:
    values = rewards.tolist()
    advantages = less(rewards, groups, lambda i, group: mean([values[j] for j in group]))
    for group in scored(rewards, groups):
        average = mean([values[i] for i in group])
        for i in group:
            advantages[i] = advantages[i] / (average + eps) if average > 0 else 0.0
    return tensor(advantages)


def gpg_advantages(rewards: Tensor, groups: Tensor, *, scale: float = 1.0) -> Tensor:
    values = rewards.tolist()
    valid = sum(len(group) for group in scored(rewards, groups) if len({values[i] for i in group}) > 1)
    alpha = len(values) / max(1, valid)
    advantages = less(rewards, groups, lambda i, group: mean([values[j] for j in group]))
    return tensor([alpha * advantage / scale for advantage in advantages])


def pass_at_k_advantages(success: Tensor, groups: Tensor, *, k: int) -> Tensor:
    """Every choice of k rollouts is formed, rewarded by its best, and standardised among all choices."""
    values = success.tolist()
    advantages = [0.0] * len(values)
    for group in members(groups):
        rewards = {choice: float(any(values[i] for i in choice)) for choice in itertools.combinations(group, k)}
        spread = statistics.pstdev(rewards.values()) if rewards else 0.0
        for i in group:
            if spread > 0:
                own = mean([reward for choice, reward in rewards.items() if i in choice])
                advantages[i] = (own - mean(list(rewards.values()))) / spread
    return tensor(advantages)


def remax_advantages(rewards: Tensor, greedy_rewards: Tensor) -> Tensor:
    differences = [a - b for a, b in zip(rewards.tolist(), greedy_rewards.tolist(), strict=True)]
    return tensor([0.0 if math.isnan(value) else value for value in differences])


def negative_credit(advantages: Tensor, success: Tensor) -> Tensor:
    return torch.tensor([a < 0 and s for a, s in zip(advantages.tolist(), success.tolist(), strict=True)])
