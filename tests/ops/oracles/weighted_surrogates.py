"""Weights on log-probabilities. The loss alone."""

import math
from itertools import product

import torch
from torch import Tensor

from .surrogates import advantage_of, ratio_of


def policy_gradient_surrogate(logprobs: Tensor, advantages: Tensor) -> Tensor:
    return cispo_surrogate(logprobs, torch.zeros_like(logprobs), advantages)


def cispo_surrogate(
    logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, *, ratio_low: float = 0.0, ratio_high: float = 5.0
) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, t in product(*map(range, logprobs.shape)):
        weight = max(ratio_low, min(ratio_high, ratio_of(log_ratio[i, t].item())))
        result[i, t] = -weight * advantage_of(advantages, i, t) * logprobs[i, t].item()
    return result


def dppo_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    divergence: str = "tv",
    threshold_low: float = 0.2,
    threshold_high: float = 0.2,
    ratio_high: float = 20.0,
) -> Tensor:
    """Case by case, as the paper masks: too far up where A > 0, too far down where A < 0."""
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, t in product(*map(range, logprobs.shape)):
        new, advantage = logprobs[i, t].item(), advantage_of(advantages, i, t)
        old = new - log_ratio[i, t].item()
        distance = _distance(old, new, divergence)
        too_high = advantage > 0 and new > old and distance > threshold_high
        too_low = advantage < 0 and new < old and distance > threshold_low
        if not (too_high or too_low):
            result[i, t] = -min(ratio_of(new - old), ratio_high) * advantage * new
    return result


def _distance(old: float, new: float, divergence: str) -> float:
    if divergence == "tv":
        return abs(math.exp(new) - math.exp(old))
    old, new = min(old, 0.0), min(new, 0.0)
    result = math.exp(old) * (old - new)
    if old < 0:
        result += -math.expm1(old) * (math.log(-math.expm1(old)) - math.log(max(-math.expm1(new), 2.3e-308)))
    return result
