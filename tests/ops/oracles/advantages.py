"""Advantages."""

import statistics

from torch import Tensor

from ._common import members, tensor


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
