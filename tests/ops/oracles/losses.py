"""The papers' losses, response by response and token by token."""

import math
from typing import NamedTuple

from torch import Tensor

from ..examples import case
from ._common import mean, tensor


class Token(NamedTuple):
    logprob: float
    d: float
    advantage: float


def responses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> list[list[Token]]:
    """The valid tokens of every response; log-ratios within +-20."""
    result = []
    for i in range(len(mask)):
        row = []
        for t in range(mask.shape[1]):
            if mask[i, t]:
                new, old = logprobs[i, t].item(), old_logprobs[i, t].item()
                d = 0.0 if math.isnan(old) else max(-20.0, min(20.0, new - old))
                row.append(Token(new, d, (advantages[i] if advantages.ndim == 1 else advantages[i, t]).item()))
        result.append(row)
    return result


def ppo(d: float, advantage: float, low: float, high: float) -> float:
    ratio = math.exp(d)
    return -min(ratio * advantage, max(1 - low, min(1 + high, ratio)) * advantage)


def divided(values: list[float], denominator: float | None, count: int) -> Tensor:
    return tensor(math.fsum(values) / (denominator or max(1, count)))


def grpo_loss(
    *batch: Tensor, epsilon_low: float = 0.2, epsilon_high: float = 0.2, denominator: float | None = None
) -> Tensor:
    rows = [row for row in responses(*batch) if row]
    losses = [mean([ppo(token.d, token.advantage, 0.2, 0.2) for token in row]) for row in rows]
    return divided(losses, denominator, len(rows))


def dapo_loss(
    *batch: Tensor, epsilon_low: float = 0.2, epsilon_high: float = 0.28, denominator: float | None = None
) -> Tensor:
    losses = [ppo(t.d, t.advantage, 0.2, 0.28) for row in responses(*batch) for t in row]
    return divided(losses, denominator, len(losses))


def fipo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    mask = batch[3]
    for i, row in enumerate(responses(*batch)):
        places = [t for t in range(mask.shape[1]) if mask[i, t]]
        for place, t in zip(places, row, strict=True):
            later = [(other - place, o.d) for other, o in zip(places, row, strict=True) if other >= place]
            future = math.fsum(2 ** (-steps / 32) * d for steps, d in later if math.exp(d) <= 10)
            weight = max(1.0, min(1.2, math.exp(min(80.0, future))))
            if t.advantage < 0 and math.exp(t.d) > 10:
                weight = 1.0
            loss = ppo(t.d, weight * t.advantage, 0.2, 0.28)
            losses.append(min(loss, -10 * weight * t.advantage) if t.advantage < 0 else loss)
    return divided(losses, denominator, len(losses))


def dr_grpo_loss(*batch: Tensor, max_length: int = 1, denominator: float | None = None) -> Tensor:
    rows = [row for row in responses(*batch) if row]
    losses = [ppo(t.d, t.advantage, 0.2, 0.2) for row in rows for t in row]
    return divided(losses, denominator, len(rows) * max_length)


def _sequences(batch: tuple[Tensor, ...], low: float, high: float) -> list[tuple[float, int]]:
    """GSPO's loss and the length of every response."""
    rows = [row for row in responses(*batch) if row]
    return [(ppo(mean([t.d for t in row]), row[0].advantage, low, high), len(row)) for row in rows]


def gspo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = _sequences(batch, 3e-4, 4e-4)
    return divided([loss for loss, _ in losses], denominator, len(losses))


def luspo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = _sequences(batch, 2e-3, 2.5e-3)
    return divided([loss * length for loss, length in losses], denominator, len(losses))


def gmpo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    for row in responses(*batch):
        if row:
            sign = 1 if row[0].advantage > 0 else -1
            clipped = [sign * min(sign * t.d, sign * max(-0.4, min(0.4, t.d))) for t in row]
            losses.append(-row[0].advantage * math.exp(mean(clipped)))
    return divided(losses, denominator, len(losses))


def cispo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = [-min(math.exp(t.d), 5.0) * t.advantage * t.logprob for row in responses(*batch) for t in row]
    return divided(losses, denominator, len(losses))


def dis_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    tokens = [t for row in responses(*batch) for t in row]
    losses = [-math.exp(t.d) * t.advantage * t.logprob if 0.7 < math.exp(t.d) < 6 else 0.0 for t in tokens]
    return divided(losses, denominator, len(losses))


def gpg_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor, *, denominator: float | None = None) -> Tensor:
    losses = [-t.advantage * t.logprob for row in responses(logprobs, logprobs, advantages, mask) for t in row]
    return divided(losses, denominator, len(losses))


def sapo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    for row in responses(*batch):
        gates = []
        for t in row:
            tau = 1.0 if t.advantage > 0 else 1.05
            argument = min(700.0, tau * (math.exp(t.d) - 1))
            gates.append(-4 / tau / (1 + math.exp(-argument)) * t.advantage)
        if row:
            losses.append(mean(gates))
    return divided(losses, denominator, len(losses))


def vespo_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    for row in responses(*batch):
        log_w = max(-80.0, min(80.0, math.fsum(t.d for t in row)))
        for t in row:
            k, lam = (2.0, 3.0) if t.advantage >= 0 else (3.0, 2.0)
            losses.append(-math.exp(lam + k * log_w - lam * math.exp(log_w)) * t.advantage * t.logprob)
    return divided(losses, denominator, len(losses))


def topr_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    for row in responses(*batch):
        ratio = math.exp(max(-80.0, min(80.0, math.fsum(t.d for t in row))))
        if row:
            losses.append(
                math.fsum(-(1.0 if t.advantage >= 0 else min(ratio, 1)) * t.advantage * t.logprob for t in row)
            )
    return divided(losses, denominator, len(losses))


def dro_loss(*batch: Tensor, denominator: float | None = None) -> Tensor:
    losses = []
    for row in responses(*batch):
        if row:
            policy_gradient = math.fsum(-t.advantage * t.logprob for t in row)
            losses.append(policy_gradient + 0.1 / 2 * math.fsum(t.d for t in row) ** 2)
    return divided(losses, denominator, len(losses))


CASES = [
    case("grpo_loss", "logprobs old_logprobs advantages mask"),
    case("dr_grpo_loss", "logprobs old_logprobs advantages mask denominator"),
    case("dr_grpo_loss", "logprobs old_logprobs advantages mask", max_length=9),
    case("dapo_loss", "logprobs old_logprobs advantages=token_advantages mask"),
    case("cispo_loss", "logprobs old_logprobs advantages mask"),
    case("sapo_loss", "logprobs old_logprobs advantages mask"),
    case("gspo_loss", "logprobs old_logprobs advantages mask"),
    case("luspo_loss", "logprobs old_logprobs advantages mask"),
    case("gmpo_loss", "logprobs old_logprobs advantages mask denominator"),
    case("vespo_loss", "logprobs old_logprobs advantages mask"),
    case("vespo_loss", "logprobs old_logprobs advantages mask importance_weights=weights"),
    case("fipo_loss", "logprobs old_logprobs advantages mask"),
    case("gpg_loss", "logprobs advantages=token_advantages mask"),
    case("dis_loss", "logprobs rollout_logprobs=old_logprobs advantages mask denominator"),
    case("topr_loss", "logprobs old_logprobs advantages mask"),
    case("dro_loss", "logprobs old_logprobs advantages mask"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("cispo_loss", "ratio_high", [0.9], "at least 1"),
    ("dapo_loss", "denominator", [0, -1], "positive"),
    ("dis_loss", "epsilon_low", [0], "(0, 1]"),
    ("dr_grpo_loss", "epsilon_low", [-0.1], "[0, 1]"),
    ("dro_loss", "tau", [-0.1], "at least 0"),
    ("fipo_loss", "half_life", [0], "above 0"),
    ("gpg_loss", "denominator", [0, -1], "positive"),
    ("gmpo_loss", "clip_low", [-0.1], "at least 0"),
    ("grpo_loss", "epsilon_high", [-0.1], "at least 0"),
    ("gspo_loss", "epsilon_low", [1.1], "[0, 1]"),
    ("luspo_loss", "epsilon_low", [1.1], "[0, 1]"),
    ("sapo_loss", "temperature_positive", [0], "above 0"),
    ("topr_loss", "denominator", [0, -1], "positive"),
    ("vespo_loss", "lambda_positive", [0], "above 0"),
]
