"""The formulas of every public function, one number at a time in float64.

Slow on purpose: plain loops over Python's numbers share nothing with the vectorised code under test. Each oracle has
the name of its function. Groups are always given by their ids.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

Row = Sequence[float]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def members(groups: Tensor) -> list[list[int]]:
    """The rollouts of each group, in ascending order of id."""
    ids = groups.tolist()
    return [[i for i, own in enumerate(ids) if own == one] for one in sorted(set(ids))]


def chosen(values: Row, mask: Sequence[bool]) -> list[float]:
    return [value for value, counts in zip(values, mask, strict=True) if counts]


# --- pooling


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, mean)


def last_token_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, lambda values: values[-1] if values else 0.0)


def _pool(hidden: Tensor, mask: Tensor, to_one: Callable[[list[float]], float]) -> Tensor:
    rollouts = zip(hidden.transpose(1, 2).tolist(), mask.tolist(), strict=True)
    return tensor([[to_one(chosen(column, row)) for column in columns] for columns, row in rollouts])


# --- contrastive


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


def contrastive_reward(loss: Tensor, *, weight: float = 0.2, floor: float = -0.5) -> Tensor:
    return tensor([max(-weight * value, floor) for value in loss.tolist()])


def group_similarity(embeddings: Tensor, success: Tensor, groups: Tensor) -> tuple[float, float]:
    vectors, right = embeddings.tolist(), success.tolist()
    cosines: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for group in members(groups):
        for i, j in combinations(group, 2):
            cosines[right[i] + right[j]].append(cosine(vectors[i], vectors[j]))
    return mean(cosines[2] or [math.nan]), mean(cosines[1] or [math.nan])


# --- advantages


def grpo_advantages(rewards: Tensor, groups: Tensor, *, scale: str = "group", eps: float = 1e-6) -> Tensor:
    values = rewards.tolist()
    advantages = [0.0] * len(values)
    for group in members(groups):
        own = [values[i] for i in group]
        spread = {"group": own, "batch": values, "none": []}[scale]
        deviation = statistics.stdev(spread) + eps if len(spread) > 1 else 1.0
        for i in group:
            difference = 0.0 if len(set(own)) == 1 else values[i] - statistics.mean(own)
            advantages[i] = difference / deviation if difference else 0.0
    return tensor(advantages)


# --- tokens


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, limit: float = 20.0) -> Tensor:
    result = torch.zeros(mask.shape, dtype=torch.float64)
    for i, t in product(*map(range, mask.shape)):
        if mask[i, t]:
            result[i, t] = max(-limit, min(limit, logprobs[i, t].item() - old_logprobs[i, t].item()))
    return result


def clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """The loss alone: the objective that PPO maximises, with its sign turned."""
    result = torch.zeros(log_ratio.shape, dtype=torch.float64)
    for i, t in product(*map(range, log_ratio.shape)):
        advantage = (advantages[i] if advantages.ndim == 1 else advantages[i, t]).item()
        ratio = math.exp(max(-80.0, min(80.0, log_ratio[i, t].item())))
        within = max(1 - epsilon_low, min(1 + epsilon_high, ratio))
        objective = min(ratio * advantage, within * advantage)
        if dual_clip is not None and advantage < 0:
            objective = max(objective, dual_clip * advantage)
        result[i, t] = -objective
    return result


def token_logprobs(logits: Tensor, token_ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    result = torch.zeros(token_ids.shape, dtype=torch.float64)
    for i, t in product(*map(range, token_ids.shape)):
        result[i, t] = _log_softmax(logits[i, t], temperature)[token_ids[i, t]]
    return result


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    result = torch.zeros(logits.shape[:2], dtype=torch.float64)
    for i, t in product(*map(range, result.shape)):
        logprobs = [p for p in _log_softmax(logits[i, t], temperature) if p > -math.inf]
        result[i, t] = -math.fsum(math.exp(p) * p for p in logprobs)
    return result


def _log_softmax(logits: Tensor, temperature: float) -> list[float]:
    scaled = [logit / temperature for logit in logits.tolist()]
    top = max(scaled)
    total = math.log(math.fsum(math.exp(s - top) for s in scaled))
    return [s - top - total for s in scaled]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: str = "k3") -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, t in product(*map(range, result.shape)):
        d = max(-20.0, min(20.0, logprobs[i, t].item() - ref_logprobs[i, t].item()))
        result[i, t] = {"k1": d, "k2": d * d / 2, "k3": math.expm1(-d) + d}[estimator]
    return result


# --- reductions


def aggregate(values: Tensor, mask: Tensor, *, mode: str = "token-mean", denominator: float | None = None) -> Tensor:
    rows = [chosen(*row) for row in zip(values.tolist(), mask.tolist(), strict=True)]
    of_row = mean if mode == "seq-mean-token-mean" else math.fsum
    if denominator is None:
        denominator = aggregate_denominator(mask, mode=mode).item()
    return tensor(math.fsum(of_row(row) for row in rows) / denominator)


def aggregate_denominator(mask: Tensor, *, mode: str = "token-mean", max_length: int = 1) -> Tensor:
    lengths = [sum(row) for row in mask.tolist()]
    rollouts = sum(length > 0 for length in lengths)
    count = sum(lengths) if mode == "token-mean" else rollouts
    return tensor(max(1, count) * (max_length if mode == "seq-mean-token-sum-norm" else 1))
