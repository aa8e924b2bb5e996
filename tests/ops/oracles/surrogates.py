"""Surrogates."""

import math
from itertools import product

import torch
from torch import Tensor


def advantage_of(advantages: Tensor, i: int, t: int) -> float:
    return (advantages[i] if advantages.ndim == 1 else advantages[i, t]).item()


def ratio_of(log_ratio: float) -> float:
    return math.exp(max(-80.0, min(80.0, log_ratio)))


def clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
    delta: float | None = None,
) -> Tensor:
    """The loss alone: the objective that PPO maximises, with its sign turned."""
    result = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, t in product(*map(range, log_ratio.shape)):
        advantage = advantage_of(advantages, i, t)
        ratio = ratio_of(log_ratio[i, t].item())
        within = max(1 - epsilon_low, min(1 + epsilon_high, ratio))
        free = ratio if delta is None else min(ratio, delta)
        objective = min(free * advantage, within * advantage)
        if dual_clip is not None and advantage < 0:
            objective = max(objective, dual_clip * advantage)
        result[i, t] = -objective
    return result


def sapo_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
) -> Tensor:
    result = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, t in product(*map(range, log_ratio.shape)):
        advantage = advantage_of(advantages, i, t)
        tau = temperature_positive if advantage > 0 else temperature_negative
        argument = tau * (ratio_of(log_ratio[i, t].item()) - 1)
        gate = 1 / (1 + math.exp(-argument)) if argument < 700 else 1.0
        result[i, t] = -gate * 4 / tau * advantage
    return result
