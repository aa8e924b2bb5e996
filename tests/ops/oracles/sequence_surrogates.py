"""Surrogates of whole responses. The loss alone."""

import math

import torch
from torch import Tensor

from ._common import chosen, mean
from .surrogates import advantage_of


def geometric_mean_surrogate(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, clip_low: float = 0.4, clip_high: float = 0.4
) -> Tensor:
    """As a root of a product of ratios, each clipped as PPO does it."""
    result = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        advantage = advantages[i].item()
        clipped = []
        for d in chosen(row, mask[i].tolist()):
            within = max(-clip_low, min(clip_high, d))
            clipped.append(min(d, within) if advantage > 0 else max(d, within))
        bounded = [max(-80.0, min(80.0, d)) for d in clipped]
        result[i] = -advantage * math.exp(mean(bounded))
    return result


def vespo_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        log_w = max(-80.0, min(80.0, math.fsum(chosen(row, mask[i].tolist()))))
        for t in range(len(row)):
            advantage = advantage_of(advantages, i, t)
            k, lam = (k_positive, lambda_positive) if advantage >= 0 else (k_negative, lambda_negative)
            weight = math.exp(lam + k * log_w - lam * math.exp(log_w))
            result[i, t] = -weight * advantage * logprobs[i, t].item()
    return result
