"""Log-probabilities, entropy, KL estimators."""

import math
from itertools import product

import torch
from torch import Tensor

from ..examples import case
from ._common import tensor


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


def linear_token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    entries = [*zip(weight.tolist(), [0.0] * len(weight) if bias is None else bias.tolist(), strict=True)]

    def logit(h: list[float], w: list[float], b: float) -> float:
        scaled = logit_scale * (math.fsum(x * y for x, y in zip(h, w, strict=True)) + b)
        return scaled if softcap is None else softcap * math.tanh(scaled / softcap)

    logits = tensor([[[logit(h, w, b) for w, b in entries] for h in row] for row in hidden.tolist()])
    logits = logits.view(*token_ids.shape, len(weight))
    return token_logprobs(logits, token_ids, temperature=temperature), token_entropy(logits, temperature=temperature)


def _log_softmax(logits: Tensor, temperature: float) -> list[float]:
    scaled = [logit / temperature for logit in logits.tolist()]
    top = max(scaled)
    total = math.log(math.fsum(math.exp(s - top) for s in scaled))
    return [s - top - total for s in scaled]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: str = "k3") -> Tensor:
    result = torch.zeros(logprobs.shape, dtype=torch.float64)
    for i, t in product(*map(range, result.shape)):
        d = max(-20.0, min(20.0, logprobs[i, t].item() - ref_logprobs[i, t].item()))
        values = {"k1": d, "k2": d * d / 2, "k3": math.expm1(-d) + d, "abs": abs(d)}
        result[i, t] = values[estimator.rstrip("+")]
    return result


def unbiased_kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, log_ratio: Tensor) -> Tensor:
    ratio = [[math.exp(max(-20.0, min(20.0, d))) for d in row] for row in log_ratio.tolist()]
    return tensor(ratio).view(log_ratio.shape) * kl_estimate(logprobs, ref_logprobs)


CASES = [
    case("token_logprobs", "logits token_ids", temperature=0.7),
    case("token_entropy", "logits", temperature=0.7),
    case("linear_token_logprobs", "hidden weight token_ids", temperature=0.7),
    case("linear_token_logprobs", "hidden weight token_ids bias", chunk_size=5),
    case("linear_token_logprobs", "hidden weight token_ids", chunk_size=2, keep_logits=0.5),
    case("linear_token_logprobs", "hidden weight token_ids bias", chunk_size=5, softcap=2.0, logit_scale=0.5),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k1"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k1+"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k2"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k3"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k3+"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="abs"),
    case("unbiased_kl_estimate", "logprobs ref_logprobs log_ratio"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("linear_token_logprobs", "chunk_size", [0, -1], "at least 1"),
    ("linear_token_logprobs", "keep_logits", [-0.1, 1.1, math.nan], "in [0, 1]"),
    ("linear_token_logprobs", "logit_scale", [0, -1, math.nan], "above 0"),
    ("linear_token_logprobs", "softcap", [0, -1, math.nan], "above 0 or None"),
    ("linear_token_logprobs", "temperature", [0, -1, math.nan], "above 0"),
    ("token_entropy", "temperature", [0, -1, math.nan], "above 0"),
    ("token_logprobs", "temperature", [0, -1, math.nan], "above 0"),
]
