"""Surrogates that hold back tokens of high covariance. The loss alone."""

import math
from itertools import product

import torch
from torch import Tensor

from .surrogates import advantage_of, ratio_of


def kl_cov_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    fraction: float = 2e-4,
    kl_weight: float = 1.0,
) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    covariances = covariances_of(logprobs, advantages, mask)
    top = sorted(covariances, key=lambda place: -covariances[place])[: count_of(mask, fraction)]
    for i, t in product(*map(range, logprobs.shape)):
        d = log_ratio[i, t].item()
        result[i, t] = -ratio_of(d) * advantage_of(advantages, i, t) + (kl_weight * abs(d) if (i, t) in top else 0)
    return result


def clip_cov_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    covariance_low: float = 1.0,
    covariance_high: float = 5.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Tensor:
    """For a fraction of 1: every token that may be drawn is."""
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    covariances = covariances_of(logprobs, advantages, mask)
    for i, t in product(*map(range, logprobs.shape)):
        ratio, advantage = ratio_of(log_ratio[i, t].item()), advantage_of(advantages, i, t)
        clipped = (ratio > 1 + epsilon_high and advantage > 0) or (ratio < 1 - epsilon_low and advantage < 0)
        within = max(1 - epsilon_low, min(1 + epsilon_high, ratio))
        if clipped or not covariance_low < covariances.get((i, t), -math.inf) < covariance_high:
            result[i, t] = -min(ratio * advantage, within * advantage)
    return result


def count_of(mask: Tensor, fraction: float) -> int:
    return max(1, int(fraction * sum(map(sum, mask.tolist()))))


def covariances_of(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> dict[tuple[int, int], float]:
    """By the place of every valid token."""
    places = [(i, t) for i, t in product(*map(range, mask.shape)) if mask[i, t]]
    values = [advantage_of(advantages, i, t) for i, t in places]
    logs = [logprobs[place].item() for place in places]
    middle, log_middle = math.fsum(values) / max(1, len(places)), math.fsum(logs) / max(1, len(places))
    return {
        place: (value - middle) * (log - log_middle) for place, value, log in zip(places, values, logs, strict=True)
    }
