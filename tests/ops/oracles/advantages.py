"""Advantages."""

import itertools
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from ..examples import case
from ._common import less, mean, members, scored, tensor
from .rewards import combine_rewards


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


def gpg_advantages(rewards: Tensor, groups: Tensor, *, divisor: float = 1.0) -> Tensor:
    values = rewards.tolist()
    valid = sum(len(group) for group in scored(rewards, groups) if len({values[i] for i in group}) > 1)
    alpha = len(values) / max(1, valid)
    advantages = less(rewards, groups, lambda i, group: mean([values[j] for j in group]))
    return tensor([alpha * advantage / divisor for advantage in advantages])


def corpo_advantages(rewards: Tensor, groups: Tensor, *, threshold: float) -> Tensor:
    values = rewards.tolist()
    advantages = [0.0] * len(values)
    for group in scored(rewards, groups):
        own = [values[i] for i in group]
        for i in group:
            baseline = max(threshold, own[0] if len(set(own)) == 1 else mean(own))
            advantages[i] = values[i] - baseline
    return tensor(advantages)


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


def best_minus_second_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    advantages = [0.0] * len(values)
    for group in scored(rewards, groups):
        for i in group:
            others = [values[j] for j in group if j != i]
            advantages[i] = max(values[j] for j in group) - max(others) if others else 0.0
    return tensor(advantages)


def remax_advantages(rewards: Tensor, greedy_rewards: Tensor) -> Tensor:
    differences = [a - b for a, b in zip(rewards.tolist(), greedy_rewards.tolist(), strict=True)]
    return tensor([0.0 if math.isnan(value) else value for value in differences])


def negative_credit(advantages: Tensor, success: Tensor) -> Tensor:
    return torch.tensor([a < 0 and s for a, s in zip(advantages.tolist(), success.tolist(), strict=True)])


def gdpo_advantages(
    rewards: Tensor, groups: Tensor, *, weights: Sequence[float] | None = None, eps: float = 1e-6
) -> Tensor:
    scores = combine_rewards(rewards, groups, weights=weights, method="gdpo", eps=eps).tolist()
    known = [score for score in scores if not math.isnan(score)]
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    centre = statistics.mean(known) if known else 0.0
    return tensor([(s - centre) / (deviation + eps) if s in known and deviation else 0.0 for s in scores])


CASES = [
    case("grpo_advantages", "rewards groups=ids"),
    case("grpo_advantages", "rewards groups=layout"),
    case("grpo_advantages", "rewards groups=ordered", scale="none"),
    case("grpo_advantages", "rewards groups=ids", scale="batch"),
    case("rloo_advantages", "rewards groups=ids"),
    case("rloo_advantages", "rewards groups=layout"),
    case("opo_advantages", "rewards lengths groups=ids"),
    case("opo_advantages", "rewards lengths groups=layout"),
    case("maxrl_advantages", "rewards=loss groups=ids"),
    case("maxrl_advantages", "rewards=loss groups=layout"),
    case("gpg_advantages", "rewards groups=ids"),
    case("gpg_advantages", "rewards groups=layout", divisor=2.0),
    case("corpo_advantages", "rewards groups=ids", threshold=0.1),
    case("corpo_advantages", "rewards groups=layout", threshold=-0.5),
    case("pass_at_k_advantages", "success groups=ids", k=2),
    case("pass_at_k_advantages", "success groups=ordered", k=2),
    case("best_minus_second_advantages", "rewards groups=ids"),
    case("best_minus_second_advantages", "rewards groups=layout"),
    case("remax_advantages", "rewards greedy_rewards=advantages"),
    case("gdpo_advantages", "rewards=signals groups=ids"),
    case("gdpo_advantages", "rewards=signals groups=ordered", weights=(1.0, 0.5)),
    case("negative_credit", "advantages success"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("corpo_advantages", "threshold", [math.nan, math.inf, -math.inf], "a finite number"),
    ("gdpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("gdpo_advantages", "weights", [(), (1.0,)], "one number per signal"),
    ("gpg_advantages", "divisor", [0, -1, math.nan], "above 0"),
    ("grpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("maxrl_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("pass_at_k_advantages", "k", [0, -1], "at least 1"),
]
