"""Contrastive losses, rewards and similarities."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import clipo_ops

from ..examples import case
from ._common import Row, chosen, mean, tensor


def cosine(a: Row, b: Row) -> float:
    norms = math.hypot(*a), math.hypot(*b)
    return 0.0 if min(norms) < 1e-6 else math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms[0] / norms[1]


def log_sum_exp(logits: Row) -> float:
    return math.log(math.fsum(map(math.exp, logits)))


def infonce(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> list[float]:
    """The losses that a draw may give, one per positive."""
    return [log_sum_exp(chosen(logits, candidates)) - logit for logit in chosen(logits, positives)]


def supcon_out(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    probabilities = [math.exp(s) / math.fsum(map(math.exp, chosen(logits, candidates))) for s in logits]
    return -mean([math.log(p) for p in chosen(probabilities, positives)])


def supcon_in(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    total = math.fsum(map(math.exp, chosen(logits, candidates)))
    return -math.log(mean([math.exp(s) / total for s in chosen(logits, positives)]))


def soft_nearest_neighbor(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    correct = math.fsum(map(math.exp, chosen(logits, positives)))
    return -math.log(correct / math.fsum(map(math.exp, chosen(logits, candidates))))


def negatives(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> list[float]:
    return chosen(logits, [c and not p for c, p in zip(candidates, positives, strict=True)])


def sincere(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    others = negatives(logits, positives, candidates)
    return mean([log_sum_exp([s, *others]) - s for s in chosen(logits, positives)])


def dcl(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    """One fraction per positive, whose denominator has no positive."""
    others = math.fsum(map(math.exp, negatives(logits, positives, candidates)))
    return -mean([math.log(math.exp(s) / others) for s in chosen(logits, positives)])


def centroid(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
    return -mean(chosen(logits, positives))


def similarity_of(a: Row, b: Row, kind: str) -> float:
    return cosine(a, b) if kind == "cosine" else 1 - math.sqrt(max(2 - 2 * cosine(a, b), 1e-8))


def roles(i: int, success: Tensor, groups: Tensor, scope: str) -> tuple[list[int], list[int]]:
    """The positives of a rollout and its candidates."""
    correct, ids = success.tolist(), groups.tolist()
    others = [j for j in range(len(correct)) if j != i]
    group = [j for j in others if ids[j] == ids[i]]
    positives = [j for j in (others if scope == "batch" else group) if correct[j] == correct[i]]
    return positives, group if scope == "group" else others


def contrastive_anchors(success: Tensor, groups: Tensor, *, scope: str = "group", anchors: str = "success") -> Tensor:
    def is_anchor(i: int) -> bool:
        positives, candidates = roles(i, success, groups, scope)
        return (anchors == "all" or bool(success[i])) and 1 <= len(positives) < len(candidates)

    return torch.tensor([is_anchor(i) for i in range(len(success))])


def contrastive_loss(
    embeddings: Tensor,
    success: Tensor,
    groups: Tensor,
    *,
    objective: Callable[[Row, Sequence[bool], Sequence[bool]], float] = supcon_out,
    offset: str = "none",
    **options: Any,
) -> Tensor:
    """The loss of every rollout."""

    def row(logits: Row, positives: Sequence[bool], candidates: Sequence[bool]) -> float:
        least = math.log(sum(positives)) if offset == "log_positives" else 0.0
        return objective(logits, positives, candidates) - least

    return tensor(contrastive_rows(embeddings, success, groups, row, other=0.0, **options))


def contrastive_rows(
    embeddings: Tensor,
    success: Tensor,
    groups: Tensor,
    objective: Callable[..., Any],
    *,
    other: Any,
    scope: str = "group",
    anchors: str = "success",
    similarity: str = "cosine",
    temperature: float = 0.05,
) -> list[Any]:
    """What the objective says of every anchor's row; `other` for whoever is no anchor."""
    vectors, results = embeddings.tolist(), [other] * len(success)
    for i in contrastive_anchors(success, groups, scope=scope, anchors=anchors).nonzero().flatten().tolist():
        positives, candidates = roles(i, success, groups, scope)
        likeness = [similarity_of(vectors[i], vectors[j], similarity) for j in candidates]
        logits = [(s - 1) / temperature for s in likeness]
        results[i] = objective(logits, [j in positives for j in candidates], [True] * len(candidates))
    return results


CASES = [
    case("supcon_out", "logits=rows positives candidates"),
    case("supcon_in", "logits=rows positives candidates"),
    case("soft_nearest_neighbor", "logits=rows positives candidates"),
    case("sincere", "logits=rows positives candidates"),
    case("dcl", "logits=rows positives candidates"),
    case("centroid", "logits=rows positives candidates"),
    case("infonce", "logits=rows positives=one_positive candidates"),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.supcon_out),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.supcon_in, reduction="none"),
    case("contrastive_loss", "embeddings success groups=ordered", objective=clipo_ops.soft_nearest_neighbor),
    case("contrastive_loss", "embeddings success=two_correct groups=ordered", reduction="none"),
    case("contrastive_loss", "embeddings success=two_correct groups=reversed", reduction="sum"),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.sincere, similarity="l2"),
    case("contrastive_loss", "embeddings success groups=ordered", objective=clipo_ops.centroid, anchors="all"),
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_out, scope="cross"),
    case("contrastive_loss", "embeddings success=two_correct groups=reversed", scope="cross", reduction="none"),
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_in, scope="batch"),
    case("contrastive_loss", "embeddings success=two_correct groups=ids", objective=clipo_ops.dcl, scope="cross"),
    case(
        "contrastive_loss",
        "embeddings success groups=layout",
        objective=clipo_ops.supcon_out,
        scope="batch",
        offset="log_positives",
        reduction="none",
    ),
    case("contrastive_anchors", "success groups=layout"),
    case("contrastive_anchors", "success groups=ordered"),
    case("contrastive_anchors", "success groups=ids"),
    case("contrastive_anchors", "success groups=ids", scope="cross"),
    case("contrastive_anchors", "success groups=layout", scope="batch", anchors="all"),
]


# Laying ids out reads the number of groups from the device: eager mode only.
EAGER_CASES = [
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_out),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("contrastive_loss", "temperature", [0, -0.05, math.nan], "above 0"),
]
