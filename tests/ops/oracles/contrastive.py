"""Contrastive losses, rewards and similarities."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._common import Row, chosen, mean, members, tensor


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
    right = math.fsum(map(math.exp, chosen(logits, positives)))
    return -math.log(right / math.fsum(map(math.exp, chosen(logits, candidates))))


def contrastive_anchors(success: Tensor, groups: Tensor) -> Tensor:
    right = success.tolist()
    anchors = set()
    for group in members(groups):
        correct = [i for i in group if right[i]]
        if 2 <= len(correct) < len(group):
            anchors.update(correct)
    return torch.tensor([i in anchors for i in range(len(right))])


def contrastive_loss(
    embeddings: Tensor,
    success: Tensor,
    groups: Tensor,
    *,
    objective: Callable[[Row, Sequence[bool], Sequence[bool]], float] = supcon_out,
    temperature: float = 0.05,
) -> Tensor:
    """The loss of every rollout."""
    return tensor(contrastive_rows(embeddings, success, groups, objective, temperature, 0.0))


def contrastive_rows(
    embeddings: Tensor, success: Tensor, groups: Tensor, objective: Callable[..., Any], temperature: float, other: Any
) -> list[Any]:
    """What the objective says of every anchor's row; `other` for whoever is no anchor."""
    vectors, right, anchors = embeddings.tolist(), success.tolist(), contrastive_anchors(success, groups).tolist()
    results = [other] * len(right)
    for group in members(groups):
        for i in (i for i in group if anchors[i]):
            others = [j for j in group if j != i]
            logits = [cosine(vectors[i], vectors[j]) / temperature for j in others]
            results[i] = objective(logits, [right[j] for j in others], [True] * len(others))
    return results
