"""Surrogates."""

import math
from itertools import product

import torch
from torch import Tensor

from ..examples import case
from ._common import chosen, mean


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


def fipo_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    half_life: float = 32.0,
    weight_low: float = 1.0,
    weight_high: float = 1.2,
    safe_ratio: float = 10.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    dual_clip: float = 10.0,
) -> Tensor:
    """Every token looks ahead at all later ones."""
    weighted = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        for t in range(len(row)):
            later = [k for k in range(t, len(row)) if mask[i, k] and ratio_of(row[k]) <= dual_clip]
            future = math.fsum(2 ** (-(k - t) / half_life) * max(-80.0, row[k]) for k in later)
            weight = max(weight_low, min(weight_high, math.exp(min(80.0, future))))
            advantage = advantage_of(advantages, i, t)
            if advantage < 0 and ratio_of(row[t]) > safe_ratio:
                weight = min(weight, 1.0)
            weighted[i, t] = weight * advantage
    return clipped_surrogate(
        log_ratio, weighted, epsilon_low=epsilon_low, epsilon_high=epsilon_high, dual_clip=dual_clip
    )


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


def dis_surrogate(
    logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, *, epsilon_low: float = 0.3, epsilon_high: float = 5.0
) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, t in product(*map(range, logprobs.shape)):
        ratio = ratio_of(log_ratio[i, t].item())
        if 1 - epsilon_low < ratio < 1 + epsilon_high:
            result[i, t] = -ratio * advantage_of(advantages, i, t) * logprobs[i, t].item()
    return result


def dppo_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    divergence: str = "tv",
    threshold_low: float | None = None,
    threshold_high: float | None = None,
    ratio_high: float = math.inf,
) -> Tensor:
    """Case by case, as the paper masks: too far up where A > 0, too far down where A < 0."""
    default = {"tv": 0.15, "kl": 0.05}[divergence]
    threshold_low = default if threshold_low is None else threshold_low
    threshold_high = default if threshold_high is None else threshold_high
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
    importance_weights: Tensor | None = None,
) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        weights = [1.0] * len(row) if importance_weights is None else importance_weights[i].tolist()
        corrected = [d + (math.log(w) if w > 0 else -80.0) for d, w in zip(row, weights, strict=True)]
        log_w = log_ratio_of_response(corrected, mask[i].tolist())
        for t in range(len(row)):
            advantage = advantage_of(advantages, i, t)
            k, lam = (k_positive, lambda_positive) if advantage >= 0 else (k_negative, lambda_negative)
            weight = math.exp(lam + k * log_w - lam * math.exp(log_w))
            result[i, t] = -weight * advantage * logprobs[i, t].item()
    return result


def topr_surrogate(logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        ratio = math.exp(log_ratio_of_response(row, mask[i].tolist()))
        for t in range(len(row)):
            advantage = advantage_of(advantages, i, t)
            alpha = 1.0 if advantage >= 0 else min(ratio, 1.0)
            result[i, t] = -alpha * advantage * logprobs[i, t].item()
    return result


def dro_surrogate(
    logprobs: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    tau: float = 0.1,
    level: str = "sequence",
) -> Tensor:
    """A response's penalty is the square of its log-ratio, dealt out in proportion to those of its tokens."""
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, row in enumerate(log_ratio.tolist()):
        own = [max(-80.0, min(80.0, d)) if counts else 0.0 for d, counts in zip(row, mask[i].tolist(), strict=True)]
        total = math.fsum(own)
        for t, d in enumerate(own):
            share = d / total if total else 0.0
            penalty = d**2 if level == "token" else share * total**2
            result[i, t] = -advantage_of(advantages, i, t) * logprobs[i, t].item() + tau / 2 * penalty
    return result


def log_ratio_of_response(row: list[float], mask: list[bool]) -> float:
    return max(-80.0, min(80.0, math.fsum(chosen(row, mask))))


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
        penalty = kl_weight * min(80.0, abs(d)) if (i, t) in top else 0
        result[i, t] = -ratio_of(d) * advantage_of(advantages, i, t) + penalty
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


CASES = [
    case("clipped_surrogate", "log_ratio advantages"),
    case("clipped_surrogate", "log_ratio advantages=token_advantages", dual_clip=3.0, epsilon_high=0.28),
    case("clipped_surrogate", "log_ratio advantages", epsilon_low=1.0, delta=1.5),
    case("sapo_surrogate", "log_ratio advantages"),
    case("sapo_surrogate", "log_ratio advantages=token_advantages"),
    case("fipo_surrogate", "log_ratio advantages mask"),
    case("fipo_surrogate", "log_ratio advantages=token_advantages mask", half_life=2.0, weight_low=0.5, safe_ratio=1.5),
    case("policy_gradient_surrogate", "logprobs advantages"),
    case("cispo_surrogate", "logprobs log_ratio advantages", ratio_low=0.5, ratio_high=1.5),
    case("cispo_surrogate", "logprobs log_ratio advantages=token_advantages"),
    case("dis_surrogate", "logprobs log_ratio advantages"),
    case("dis_surrogate", "logprobs log_ratio advantages=token_advantages", epsilon_high=0.2),
    case("dppo_surrogate", "logprobs log_ratio advantages", ratio_high=1.5),
    case("dppo_surrogate", "logprobs log_ratio advantages=token_advantages", divergence="kl"),
    case("geometric_mean_surrogate", "log_ratio advantages mask"),
    case("vespo_surrogate", "logprobs log_ratio advantages mask"),
    case("vespo_surrogate", "logprobs log_ratio advantages=token_advantages mask importance_weights=weights"),
    case("topr_surrogate", "logprobs log_ratio advantages mask"),
    case("topr_surrogate", "logprobs log_ratio advantages=token_advantages mask"),
    case("dro_surrogate", "logprobs log_ratio advantages mask"),
    case("dro_surrogate", "logprobs log_ratio advantages=token_advantages mask", level="token", tau=1.0),
    case("clip_cov_surrogate", "logprobs log_ratio advantages mask", fraction=1.0, covariance_low=0.1),
    case("kl_cov_surrogate", "logprobs log_ratio advantages=token_advantages mask", fraction=0.1),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("cispo_surrogate", "ratio_high", [0.9, math.nan], "at least 1"),
    ("cispo_surrogate", "ratio_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("clip_cov_surrogate", "covariance_high", [0.1, 0.05, math.nan], "above covariance_low"),
    ("clip_cov_surrogate", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("clipped_surrogate", "delta", [1, 0.5, math.nan], "above 1 or None"),
    ("clipped_surrogate", "dual_clip", [1, 0.5, math.nan], "above 1 or None"),
    ("clipped_surrogate", "epsilon_high", [-0.1, math.nan], "at least 0"),
    ("clipped_surrogate", "epsilon_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("dis_surrogate", "epsilon_high", [0, -0.1, math.nan], "above 0"),
    ("dis_surrogate", "epsilon_low", [0, 1.1, math.nan], "(0, 1]"),
    ("dppo_surrogate", "ratio_high", [0.9, math.nan], "at least 1"),
    ("dppo_surrogate", "threshold_high", [-0.1, math.nan], "at least 0"),
    ("dppo_surrogate", "threshold_low", [-0.1, math.nan], "at least 0"),
    ("dro_surrogate", "tau", [-0.1, math.nan], "at least 0"),
    ("fipo_surrogate", "dual_clip", [1, 0, -1, math.nan], "above 1"),
    ("fipo_surrogate", "epsilon_high", [-0.1, math.nan], "at least 0"),
    ("fipo_surrogate", "epsilon_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("fipo_surrogate", "half_life", [0, -1, math.nan], "above 0"),
    ("fipo_surrogate", "safe_ratio", [0, -1, math.nan], "above 0"),
    ("fipo_surrogate", "weight_high", [0.9, math.nan], "at least 1"),
    ("fipo_surrogate", "weight_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("geometric_mean_surrogate", "clip_high", [-0.1, math.nan], "at least 0"),
    ("geometric_mean_surrogate", "clip_low", [-0.1, math.nan], "at least 0"),
    ("kl_cov_surrogate", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("kl_cov_surrogate", "kl_weight", [-0.1, math.nan], "at least 0"),
    ("sapo_surrogate", "temperature_negative", [0, -1, math.nan], "above 0"),
    ("sapo_surrogate", "temperature_positive", [0, -1, math.nan], "above 0"),
    ("vespo_surrogate", "k_negative", [-1, math.nan], "at least 0"),
    ("vespo_surrogate", "k_positive", [-1, math.nan], "at least 0"),
    ("vespo_surrogate", "lambda_negative", [0, math.nan], "above 0"),
    ("vespo_surrogate", "lambda_positive", [0, math.nan], "above 0"),
]
