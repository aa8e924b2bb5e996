"""What is logged."""

import math
from itertools import combinations, pairwise

from torch import Tensor

from ..examples import case
from ._common import chosen, mean, members, tensor
from .contrastive import contrastive_rows, cosine, infonce


def group_similarity(embeddings: Tensor, success: Tensor, groups: Tensor) -> tuple[float, float, float]:
    vectors, correct = embeddings.tolist(), success.tolist()
    cosines: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for group in members(groups):
        for i, j in combinations(group, 2):
            cosines[correct[i] + correct[j]].append(cosine(vectors[i], vectors[j]))
    positive, negative, incorrect = (mean(cosines[correct] or [math.nan]) for correct in (2, 1, 0))
    return positive, negative, incorrect


def length_bucket_similarity(embeddings: Tensor, lengths: Tensor, *, buckets: int = 4) -> Tensor:
    count = len(lengths)
    order = sorted(range(count), key=lambda i: (lengths[i].item(), i))
    bounds = [b * count // buckets for b in range(buckets + 1)]
    vectors = embeddings.tolist()
    cosines = [
        [cosine(vectors[i], vectors[j]) for i, j in combinations(order[start:end], 2)]
        for start, end in pairwise(bounds)
    ]
    return tensor([mean(values or [math.nan]) for values in cosines])


def reward_by_verdict(rewards: Tensor, success: Tensor) -> tuple[float, float]:
    pairs = list(zip(rewards.tolist(), success.tolist(), strict=True))
    correct, incorrect = (
        mean([reward for reward, own in pairs if own is verdict and math.isfinite(reward)] or [math.nan])
        for verdict in (True, False)
    )
    return correct, incorrect


def noise_share(embeddings: Tensor, success: Tensor, groups: Tensor, *, temperature: float = 0.05) -> float:
    """From all the losses that the draws may give: their variance within anchors over that within groups."""
    outcomes = contrastive_rows(embeddings, success, groups, infonce, other=None, temperature=temperature)
    within, total = 0.0, 0.0
    for group in members(groups):
        losses = [outcomes[i] for i in group if outcomes[i] is not None]
        average = mean([mean(own) for own in losses])
        within += math.fsum(mean([(loss - mean(own)) ** 2 for loss in own]) for own in losses)
        total += math.fsum(mean([(loss - average) ** 2 for loss in own]) for own in losses)
    return within / total if total > 0 else math.nan


def process_gap(rewards: Tensor, success: Tensor, process: Tensor, groups: Tensor) -> tuple[float, float]:
    values, sound = rewards.tolist(), (success & process).tolist()
    flawed = (success & ~process).tolist()
    pairs = [
        (values[i], values[j]) for group in members(groups) for i in group for j in group if sound[i] and flawed[j]
    ]
    pairs = [(a, b) for a, b in pairs if a == a and b == b]  # neither is NaN
    gaps = [a - b for a, b in pairs]
    return mean(gaps or [math.nan]), mean([(a > b) + 0.5 * (a == b) for a, b in pairs] or [math.nan])


def degenerate_fraction(rewards: Tensor, groups: Tensor) -> float:
    values = rewards.tolist()
    return mean([len({values[i] for i in group if not math.isnan(values[i])}) <= 1 for group in members(groups)])


def clamp_fraction(rewards: Tensor, anchor_mask: Tensor, *, floor: float = -0.5) -> float:
    return mean([value <= floor for value in chosen(rewards.tolist(), anchor_mask.tolist())] or [math.nan])


def clip_fraction(clipped: Tensor, mask: Tensor) -> float:
    return mean(chosen(clipped.flatten().tolist(), mask.flatten().tolist()) or [math.nan])


def approximate_kl(log_ratio: Tensor, mask: Tensor) -> float:
    limited = [max(-20.0, min(20.0, d)) for d in chosen(log_ratio.flatten().tolist(), mask.flatten().tolist())]
    return mean([math.expm1(d) - d for d in limited] or [math.nan])


def effective_sample_size(log_ratio: Tensor, mask: Tensor) -> float:
    weights = [math.exp(d) for d in chosen(log_ratio.flatten().tolist(), mask.flatten().tolist())]
    if not weights:
        return math.nan
    return math.fsum(weights) ** 2 / math.fsum(w * w for w in weights) / len(weights)


CASES = [
    case("group_similarity", "embeddings success groups=layout"),
    case("group_similarity", "embeddings success groups=ordered"),
    case("length_bucket_similarity", "embeddings lengths"),
    case("noise_share", "embeddings success groups=layout", temperature=0.5),
    case("noise_share", "embeddings success groups=ordered"),
    case("process_gap", "rewards success=two_correct process groups=ordered"),
    case("reward_by_verdict", "rewards success"),
    case("degenerate_fraction", "rewards groups=layout"),
    case("clamp_fraction", "rewards anchor_mask=success"),
    case("approximate_kl", "log_ratio mask"),
    case("clip_fraction", "clipped mask"),
    case("effective_sample_size", "log_ratio mask"),
]


# Laying ids out reads the number of groups from the device: eager mode only.
EAGER_CASES = [
    case("group_similarity", "embeddings success groups=ids"),
    case("noise_share", "embeddings success groups=ids"),
    case("process_gap", "rewards success process groups=ids"),
    case("degenerate_fraction", "rewards groups=ids"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("clamp_fraction", "floor", [0.1, math.nan], "at most 0"),
    ("length_bucket_similarity", "buckets", [0, -1], "at least 1"),
    ("noise_share", "temperature", [0, -0.05, math.nan], "above 0"),
]
