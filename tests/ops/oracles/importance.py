"""Importance ratios, and corrections for other policies."""

import math
from itertools import product

import torch
from torch import Tensor

from ..examples import case
from ._common import chosen, mean, tensor


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, limit: float = 20.0) -> Tensor:
    result = torch.zeros(mask.shape, dtype=torch.float64)
    for i, t in product(*map(range, mask.shape)):
        if mask[i, t]:
            result[i, t] = max(-limit, min(limit, logprobs[i, t].item() - old_logprobs[i, t].item()))
    return result


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    return tensor([mean(chosen(*row)) for row in zip(log_ratio.tolist(), mask.tolist(), strict=True)])


def gspo_token_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """The value alone."""
    rows = zip(sequence_log_ratio(log_ratio, mask).tolist(), mask.tolist(), strict=True)
    return tensor([[value if counts else 0.0 for counts in row] for value, row in rows])


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


CASES = [
    case("log_ratio", "logprobs old_logprobs mask"),
    case("sequence_log_ratio", "log_ratio mask"),
    case("gspo_token_log_ratio", "log_ratio mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="sequence"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="geometric"),
    case("off_policy_sequence_mask", "logprobs old_logprobs advantages mask"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("log_ratio", "limit", [0, -20, math.nan], "above 0"),
    ("masked_importance_weights", "high", [0.9, math.nan], "at least 1"),
    ("masked_importance_weights", "low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("off_policy_sequence_mask", "threshold", [-0.1, math.nan], "at least 0"),
    ("truncated_importance_weights", "cap", [0, -1, math.nan], "above 0"),
]
