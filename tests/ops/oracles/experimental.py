"""Relatives of CLIPO's reward."""

import math

from torch import Tensor

from ..examples import case
from ._common import chosen, mean, members, tensor


def consensus_reward(
    states: Tensor,
    success: Tensor,
    groups: Tensor,
    *,
    weight: float = 0.5,
    bandwidth: float = 1.0,
    gate: float | None = None,
) -> Tensor:
    rewards = [0.0] * len(success)
    for group in members(groups):
        correct = [i for i in group if success[i]]
        if len(correct) < 2:
            continue
        apart = {(i, p): _distance(states[i].tolist(), states[p].tolist()) for i in correct for p in correct if p != i}
        scale = mean(list(apart.values()))
        typical = {
            i: mean([math.exp(-apart[i, p] / (bandwidth * scale + 1e-5)) for p in correct if p != i]) for i in correct
        }
        best = max(typical.values())
        for i in correct:
            rewards[i] = weight * (typical[i] - best) if gate is None else -weight * (typical[i] < gate * best)
    return tensor(rewards)


def _distance(one: list[list[float]], other: list[list[float]]) -> float:
    return mean([_apart(h, k) for h, k in zip(one, other, strict=True)])


def _apart(one: list[float], other: list[float]) -> float:
    norms = math.hypot(*one), math.hypot(*other)
    if 0 in norms:
        return float(norms != (0, 0))
    return max(0.0, 1 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / math.prod(norms))


def _sides(success: Tensor, groups: Tensor, counts: list[bool]) -> list[tuple[list[int], list[int]]]:
    """The correct and the incorrect rollouts of each group, among those that count."""
    return [
        ([i for i in group if counts[i] and success[i]], [i for i in group if counts[i] and not success[i]])
        for group in members(groups)
    ]


def real_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    success: Tensor,
    groups: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.5,
    denominator: float | Tensor | None = None,
) -> Tensor:
    ratios = (logprobs - old_logprobs).clamp(-20, 20).tolist()
    scores = [mean(chosen(row, counts)) / temperature for row, counts in zip(ratios, mask.tolist(), strict=True)]
    total = 0.0
    sides = _sides(success, groups, mask.any(1).tolist())
    for correct, incorrect in sides:
        if correct and incorrect:
            total += math.log(1 + sum(math.exp(-scores[i]) for i in correct))
            total += math.log(1 + sum(math.exp(scores[i]) for i in incorrect))
    return tensor(total / max(1, len(sides) if denominator is None else float(denominator)))


def conspo_loss(
    logprobs: Tensor, success: Tensor, groups: Tensor, mask: Tensor, *, temperature: float, margin: float = 0.0
) -> Tensor:
    scores = [mean(chosen(row, counts)) for row, counts in zip(logprobs.tolist(), mask.tolist(), strict=True)]
    losses = [0.0] * len(scores)
    for correct, incorrect in _sides(success, groups, mask.any(1).tolist()):
        for i in correct:
            own = math.exp((scores[i] - margin) / temperature)
            losses[i] = -math.log(own / (own + sum(math.exp(scores[j] / temperature) for j in incorrect)))
    return tensor(losses)


def hidden_align_loss(states: Tensor, success: Tensor, groups: Tensor) -> Tensor:
    rows = states.tolist()
    losses = [0.0] * len(rows)
    for correct, _ in _sides(success, groups, [any(row) for row in rows]):
        for i in correct if len(correct) > 1 else []:
            losses[i] = mean([_one_minus_cosine(rows[i], rows[j]) for j in correct if j != i])
    return tensor(losses)


def _one_minus_cosine(one: list[float], other: list[float]) -> float:
    return 1 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def latent_grpo_reward(states: Tensor, groups: Tensor, *, bandwidth: float, iterations: int) -> Tensor:
    rows = states.tolist()
    rewards = [0.0] * len(rows)
    for group in members(groups):
        unit = {i: [x / math.hypot(*rows[i]) for x in rows[i]] for i in group if any(rows[i])}
        if not unit:
            continue
        weights = dict.fromkeys(unit, 1.0)
        for step in range(iterations + 1):
            total = math.fsum(weights.values())
            columns = range(len(rows[0]))
            center = [math.fsum(weights[i] * unit[i][k] for i in unit) / total for k in columns]
            distances = {i: math.dist(unit[i], center) for i in unit}
            if step < iterations:
                nearest = min(distances.values())  # a factor that all weights share, so that they do not all vanish
                weights = {i: math.exp((nearest**2 - d**2) / (2 * bandwidth**2)) for i, d in distances.items()}
        farthest, nearest = max(distances.values()), min(distances.values())
        for i, distance in distances.items() if farthest - nearest > 1e-5 else []:
            rewards[i] = (farthest - distance) / (farthest - nearest)
    return tensor(rewards)


def shear_weights(
    hidden: Tensor,
    success: Tensor,
    groups: Tensor,
    mask: Tensor,
    *,
    regularization: float,
    window: int = 100,
    stride: int = 25,
    iterations: int = 50,
) -> Tensor:
    states, counts = hidden.tolist(), mask.tolist()
    weights = [[float(c) for c in row] for row in counts]
    for correct, incorrect in _sides(success, groups, mask.any(1).tolist()):
        if not correct or not incorrect:
            continue
        spans = {i: _spans(counts[i], window, stride) for i in correct + incorrect}
        scale = mean([math.hypot(*states[i][t]) for i in spans for t, c in enumerate(counts[i]) if c])
        for i in spans:
            apart = {
                own: min(
                    _sinkhorn([states[i][t] for t in own], [states[j][t] for t in other], regularization, iterations)
                    for j in (incorrect if success[i] else correct)
                    for other in spans[j]
                )
                for own in spans[i]
            }
            for t, c in enumerate(counts[i]):
                weights[i][t] = max(apart[own] for own in spans[i] if t in own) / scale if c else 0.0
    return tensor(weights)


def _spans(counts: list[bool], window: int, stride: int) -> list[tuple[int, ...]]:
    """The tokens that count of each span, up to the first span that reaches the end; not of those that have none."""
    end = max(t for t, c in enumerate(counts) if c) + 1
    spans, start = [], 0
    while True:
        spans.append(tuple(t for t in range(start, min(start + window, end)) if counts[t]))
        if start + window >= end:
            return [span for span in spans if span]
        start += stride


def _sinkhorn(one: list[list[float]], other: list[list[float]], regularization: float, iterations: int) -> float:
    """Sinkhorn's iterations as in Cuturi's paper: scaling the rows and the columns of a kernel in turn."""
    costs = [[math.dist(a, b) for b in other] for a in one]
    kernel = [[math.exp(-cost / regularization) for cost in row] for row in costs]
    rows, columns = range(len(one)), range(len(other))
    v = [1 / len(other)] * len(other)
    for _ in range(iterations):
        u = [1 / len(one) / math.fsum(kernel[a][b] * v[b] for b in columns) for a in rows]
        v = [1 / len(other) / math.fsum(kernel[a][b] * u[a] for a in rows) for b in columns]
    return math.fsum(u[a] * kernel[a][b] * v[b] * costs[a][b] for a in rows for b in columns)


CASES = [
    case("consensus_reward", "states success groups=layout"),
    case("consensus_reward", "states success=two_correct groups=ordered", gate=0.5),
    case("conspo_loss", "logprobs success groups=layout mask", temperature=0.5),
    case("conspo_loss", "logprobs success=two_correct groups=ordered mask", temperature=0.1, margin=0.2),
    case("hidden_align_loss", "states=embeddings success groups=layout"),
    case("hidden_align_loss", "states=embeddings success=two_correct groups=ordered"),
    case("latent_grpo_reward", "states=embeddings groups=layout", bandwidth=0.5, iterations=4),
    case("latent_grpo_reward", "states=embeddings groups=ordered", bandwidth=1.0, iterations=0),
    case("real_loss", "logprobs old_logprobs success groups=layout mask"),
    case("real_loss", "logprobs old_logprobs success=two_correct groups=ordered mask denominator", temperature=1.0),
    case("shear_weights", "hidden success groups=layout mask", regularization=1.0, window=4, stride=2, iterations=5),
    case("shear_weights", "hidden success=two_correct groups=ordered mask", regularization=0.5, window=100),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("consensus_reward", "bandwidth", [0, -1, math.nan], "above 0"),
    ("consensus_reward", "gate", [0.0, 1.0, math.nan], "None or a number in (0, 1)"),
    ("consensus_reward", "weight", [-0.1, math.nan], "at least 0"),
    ("conspo_loss", "margin", [-0.1, math.nan], "at least 0"),
    ("conspo_loss", "temperature", [0, -1, math.nan], "above 0"),
    ("latent_grpo_reward", "bandwidth", [0, -1, math.nan], "above 0"),
    ("latent_grpo_reward", "iterations", [-1], "at least 0"),
    ("real_loss", "denominator", [0.0, -1.0, math.nan], "positive"),
    ("real_loss", "temperature", [0, -1, math.nan], "above 0"),
    ("shear_weights", "iterations", [0], "at least 1"),
    ("shear_weights", "regularization", [0, -1, math.nan], "above 0"),
    ("shear_weights", "stride", [0, 5], "from 1 to window"),
    ("shear_weights", "window", [0], "at least 1"),
]
