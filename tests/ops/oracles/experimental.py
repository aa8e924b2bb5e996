"""Rewards of our own."""

import math

from torch import Tensor

from ..examples import case
from ._common import mean, members, tensor


def consensus_reward(
    states: Tensor,
    success: Tensor,
    groups: Tensor,
    *,
    weight: float = 0.5,
    bandwidth: float = 1.0,
    gate: float | None = None,
) -> Tensor:
    rewards = [0.0] * len(success)
    for group in members(groups):
        right = [i for i in group if success[i]]
        if len(right) < 2:
            continue
        apart = {(i, p): _distance(states[i].tolist(), states[p].tolist()) for i in right for p in right if p != i}
        scale = mean(list(apart.values()))
        typical = {
            i: mean([math.exp(-apart[i, p] / (bandwidth * scale + 1e-5)) for p in right if p != i]) for i in right
        }
        best = max(typical.values())
        for i in right:
            rewards[i] = weight * (typical[i] - best) if gate is None else -weight * (typical[i] < gate * best)
    return tensor(rewards)


def _distance(one: list[list[float]], other: list[list[float]]) -> float:
    return mean([_apart(h, k) for h, k in zip(one, other, strict=True)])


def _apart(one: list[float], other: list[float]) -> float:
    norms = math.hypot(*one), math.hypot(*other)
    if 0 in norms:
        return float(norms != (0, 0))
    return max(0.0, 1 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / math.prod(norms))


CASES = [
    case("consensus_reward", "states success groups=layout"),
    case("consensus_reward", "states success=two_correct groups=ordered", gate=0.5),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("consensus_reward", "bandwidth", [0, -1, math.nan], "above 0"),
    ("consensus_reward", "gate", [0.0, 1.0, math.nan], "None or a number in (0, 1)"),
    ("consensus_reward", "weight", [-0.1, math.nan], "at least 0"),
]
