"""Surrogates."""

import math
from itertools import product

import torch
from torch import Tensor


def clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """The loss alone: the objective that PPO maximises, with its sign turned."""
    result = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, t in product(*map(range, log_ratio.shape)):
        advantage = (advantages[i] if advantages.ndim == 1 else advantages[i, t]).item()
        ratio = math.exp(max(-80.0, min(80.0, log_ratio[i, t].item())))
        within = max(1 - epsilon_low, min(1 + epsilon_high, ratio))
        objective = min(ratio * advantage, within * advantage)
        if dual_clip is not None and advantage < 0:
            objective = max(objective, dual_clip * advantage)
        result[i, t] = -objective
    return result
