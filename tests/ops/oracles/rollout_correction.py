"""Weights and masks against off-policy tokens, and tokens of high entropy."""

import math

import torch
from torch import Tensor

from ._common import chosen, mean, tensor


def truncated_importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, *, cap: float = 2.0, level: str = "token"
) -> Tensor:
    ratios = _ratios(old_logprobs, rollout_logprobs, mask, level)
    return tensor([[min(ratio, cap) for ratio in row] for row in ratios])


def masked_importance_weights(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    low: float = 0.5,
    high: float = 2.0,
    level: str = "token",
) -> Tensor:
    ratios = _ratios(old_logprobs, rollout_logprobs, mask, level)
    return tensor([[ratio if low <= ratio <= high else 0.0 for ratio in row] for row in ratios])


def _ratios(old: Tensor, rollout: Tensor, mask: Tensor, level: str) -> list[list[float]]:
    result = []
    for row in zip(old.tolist(), rollout.tolist(), mask.tolist(), strict=True):
        pairs = zip(*row, strict=True)
        differences = [0.0 if not counts or math.isnan(b) else max(-80.0, min(80.0, a - b)) for a, b, counts in pairs]
        valid = chosen(differences, row[2])
        whole = {"token": 0.0, "sequence": math.fsum(valid), "geometric": mean(valid)}[level]
        exponents = differences if level == "token" else [whole] * len(differences)
        result.append([math.exp(max(-80.0, min(80.0, exponent))) for exponent in exponents])
    return result


def off_policy_sequence_mask(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float = 0.5
) -> Tensor:
    keep = []
    for i, advantage in enumerate(advantages.tolist()):
        pairs = zip(logprobs[i].tolist(), old_logprobs[i].tolist(), strict=True)
        differences = [0.0 if math.isnan(old) else max(-80.0, min(80.0, old - new)) for new, old in pairs]
        moved = chosen(differences, mask[i].tolist())
        keep.append(not (advantage < 0 and mean(moved) > threshold))
    return torch.tensor(keep)


def top_entropy_mask(entropy: Tensor, mask: Tensor, *, fraction: float = 0.2) -> Tensor:
    """Of n valid tokens, those that fewer than floor((n - 1) fraction) + 1 others exceed."""
    valid = [value for row in zip(entropy.tolist(), mask.tolist(), strict=True) for value in chosen(*row)]
    number = math.floor((len(valid) - 1) * fraction) + 1
    rows = zip(entropy.tolist(), mask.tolist(), strict=True)
    return torch.tensor(
        [
            [counts and sum(other > value for other in valid) < number for value, counts in zip(*row, strict=True)]
            for row in rows
        ]
    )
