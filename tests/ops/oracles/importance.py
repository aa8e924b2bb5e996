"""Importance ratios, and corrections for other policies."""

import math
from collections.abc import Callable
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
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    floor: float = 0.0,
    cap: float = 2.0,
    level: str = "token",
) -> Tensor:
    ratios = _ratios(old_logprobs, rollout_logprobs, mask, level)
    return tensor([[max(min(ratio, cap), floor) for ratio in row] for row in ratios])


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


def importance_ratio_mask(
    old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, *, low: float, high: float, level: str
) -> Tensor:
    ratios = tensor(_ratios(old_logprobs, rollout_logprobs, mask, level)).view(mask.shape)
    return _kept(mask, lambda i, t: low <= ratios[i, t].item() <= high)


def divergence_mask(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    threshold: float,
    estimator: str = "k3",
    level: str = "sequence-mean",
) -> Tensor:
    differences = _differences(old_logprobs, rollout_logprobs, mask, limit=20.0)
    estimates = [[d * d / 2 if estimator == "k2" else math.expm1(d) - d for d in row] for row in differences]

    def keep(i: int, t: int) -> bool:
        valid = chosen(estimates[i], mask[i].tolist())
        measures = {"token": estimates[i][t], "sequence-sum": math.fsum(valid), "sequence-mean": mean(valid)}
        return measures[level] <= threshold

    return _kept(mask, keep)


def veto_mask(keep: Tensor, mask: Tensor) -> Tensor:
    return _kept(mask, lambda i, _: all(chosen(keep[i].tolist(), mask[i].tolist())))


def off_policy_sequence_mask(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float = 0.5
) -> Tensor:
    differences = _differences(old_logprobs, logprobs, mask)

    def keep(i: int, _: int) -> bool:
        return advantages[i].item() >= 0 or mean(chosen(differences[i], mask[i].tolist())) <= threshold

    return _kept(mask, keep)


def second_moment_mask(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float = 0.04
) -> Tensor:
    """The paper's loop: the largest square goes, one at a time."""
    differences = _differences(logprobs, old_logprobs, mask)
    places = [(i, t) for i, t in product(*map(range, mask.shape)) if mask[i, t]]
    remaining = {(i, t): differences[i][t] ** 2 for i, t in places if differences[i][t] * advantages[i].item() > 0}
    dropped = set()
    while remaining and math.fsum(remaining.values()) / len(remaining) > threshold:
        worst = max(remaining, key=lambda place: remaining[place])
        del remaining[worst]
        dropped.add(worst)
    return _kept(mask, lambda i, t: (i, t) not in dropped)


def _kept(mask: Tensor, keep: Callable[[int, int], bool]) -> Tensor:
    result = torch.zeros_like(mask)
    for i, t in product(*map(range, mask.shape)):
        result[i, t] = bool(mask[i, t]) and keep(i, t)
    return result


def _differences(new: Tensor, old: Tensor, mask: Tensor, *, limit: float = 80.0) -> list[list[float]]:
    """Clamped; 0 where there is no token, and where either is not known."""
    result = []
    for row in zip(new.tolist(), old.tolist(), mask.tolist(), strict=True):
        pairs = zip(*row, strict=True)
        result.append(
            [0.0 if not counts or math.isnan(a - b) else max(-limit, min(limit, a - b)) for a, b, counts in pairs]
        )
    return result


def _ratios(old: Tensor, rollout: Tensor, mask: Tensor, level: str) -> list[list[float]]:
    result = []
    for differences, counts in zip(_differences(old, rollout, mask), mask.tolist(), strict=True):
        valid = chosen(differences, counts)
        whole = {"token": 0.0, "sequence": math.fsum(valid), "geometric": mean(valid)}[level]
        exponents = differences if level == "token" else [whole] * len(differences)
        result.append([math.exp(max(-80.0, min(80.0, exponent))) for exponent in exponents])
    return result


CASES = [
    case("log_ratio", "logprobs old_logprobs mask"),
    case("sequence_log_ratio", "log_ratio mask"),
    case("gspo_token_log_ratio", "log_ratio mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="sequence"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="geometric"),
    case(
        "truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", floor=0.5, level="geometric"
    ),
    case("importance_ratio_mask", "old_logprobs rollout_logprobs=ref_logprobs mask", low=0.5, high=2.0, level="token"),
    case(
        "importance_ratio_mask", "old_logprobs rollout_logprobs=ref_logprobs mask", low=0.8, high=1.2, level="geometric"
    ),
    case("divergence_mask", "old_logprobs rollout_logprobs=ref_logprobs mask", threshold=0.5),
    case(
        "divergence_mask",
        "old_logprobs rollout_logprobs=ref_logprobs mask",
        threshold=0.5,
        estimator="k2",
        level="token",
    ),
    case("divergence_mask", "old_logprobs rollout_logprobs=ref_logprobs mask", threshold=2.0, level="sequence-sum"),
    case("veto_mask", "keep=clipped mask"),
    case("off_policy_sequence_mask", "logprobs old_logprobs advantages mask"),
    case("second_moment_mask", "logprobs old_logprobs advantages mask"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("divergence_mask", "threshold", [-0.1, math.nan], "at least 0"),
    ("importance_ratio_mask", "high", [0.9, math.nan], "at least 1"),
    ("importance_ratio_mask", "low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("log_ratio", "limit", [0, -20, math.nan], "above 0"),
    ("masked_importance_weights", "high", [0.9, math.nan], "at least 1"),
    ("masked_importance_weights", "low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("off_policy_sequence_mask", "threshold", [-0.1, math.nan], "at least 0"),
    ("second_moment_mask", "threshold", [-0.1, math.nan], "at least 0"),
    ("truncated_importance_weights", "floor", [-0.1, 1.1, math.nan], "[0, min(1, cap)]"),
    ("truncated_importance_weights", "cap", [0, -1, math.nan], "above 0"),
]
