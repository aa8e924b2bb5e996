"""Masks and reductions."""

import math
import statistics

import torch
from torch import Tensor

from ..examples import case
from ._common import chosen, mean, members, tensor


def aggregate(
    values: Tensor,
    mask: Tensor,
    *,
    mode: str = "token-mean",
    denominator: float | None = None,
    group_tokens: Tensor | None = None,
) -> Tensor:
    rows = [chosen(*row) for row in zip(values.tolist(), mask.tolist(), strict=True)]
    totals = [mean(row) if mode == "seq-mean-token-mean" else math.fsum(row) for row in rows]
    if mode == "prompt-mean":
        totals = [total / max(1, count) for total, count in zip(totals, group_tokens.tolist(), strict=True)]
    if denominator is None:
        denominator = aggregate_denominator(mask, mode=mode, group_tokens=group_tokens).item()
    return tensor(math.fsum(totals) / denominator)


def aggregate_denominator(
    mask: Tensor, *, mode: str = "token-mean", max_length: int = 1, group_tokens: Tensor | None = None
) -> Tensor:
    lengths = [sum(row) for row in mask.tolist()]
    rollouts = sum(length > 0 for length in lengths)
    if mode == "prompt-mean":
        pairs = zip(lengths, group_tokens.tolist(), strict=True)
        return tensor(math.fsum(length / max(1, count) for length, count in pairs) or 1.0)
    count = sum(lengths) if mode == "token-mean" else rollouts
    return tensor(max(1, count) * (max_length if mode == "seq-mean-token-sum-norm" else 1))


def group_token_counts(mask: Tensor, groups: Tensor) -> Tensor:
    lengths, counts = mask.sum(1).tolist(), [0] * len(mask)
    for group in members(groups):
        for i in group:
            counts[i] = sum(lengths[j] for j in group)
    return torch.tensor(counts)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    valid = [value for row in zip(values.tolist(), mask.tolist(), strict=True) for value in chosen(*row)]
    average = statistics.mean(valid) if valid else 0.0
    variance = statistics.variance(valid) if len(valid) > 1 else 0.0
    deviation = math.sqrt(variance + eps)

    def whitened(value: float) -> float:
        scaled = (value - average) / deviation if value != average else 0.0
        return scaled if shift_mean else scaled + average

    rows = zip(values.tolist(), mask.tolist(), strict=True)
    return tensor([[whitened(v) if counts else 0.0 for v, counts in zip(*row, strict=True)] for row in rows])


def top_entropy_mask(entropy: Tensor, mask: Tensor, *, fraction: float = 0.2) -> Tensor:
    """The valid tokens, n in all, that fewer than floor((n - 1) fraction) + 1 others exceed."""
    valid = [value for row in zip(entropy.tolist(), mask.tolist(), strict=True) for value in chosen(*row)]
    number = math.floor((len(valid) - 1) * fraction) + 1
    rows = zip(entropy.tolist(), mask.tolist(), strict=True)
    return torch.tensor(
        [
            [counts and sum(other > value for other in valid) < number for value, counts in zip(*row, strict=True)]
            for row in rows
        ]
    )


CASES = [
    case("whiten", "values=logprobs mask"),
    case("whiten", "values=logprobs mask", shift_mean=False),
    case("top_entropy_mask", "entropy=ref_logprobs mask"),
    case("aggregate", "values=logprobs mask", mode="token-mean"),
    case("aggregate", "values=logprobs mask", mode="seq-mean-token-mean"),
    case("aggregate", "values=logprobs mask", mode="seq-mean-token-sum"),
    case("aggregate", "values=logprobs mask denominator", mode="seq-mean-token-sum-norm"),
    case("aggregate", "values=logprobs mask group_tokens", mode="prompt-mean"),
    case("aggregate_denominator", "mask", mode="token-mean"),
    case("aggregate_denominator", "mask", mode="seq-mean-token-mean"),
    case("aggregate_denominator", "mask", mode="seq-mean-token-sum-norm", max_length=9),
    case("aggregate_denominator", "mask group_tokens", mode="prompt-mean"),
    case("group_token_counts", "mask groups=ids"),
    case("group_token_counts", "mask groups=layout"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("aggregate", "denominator", [0, -1.5, math.nan], "positive"),
    ("top_entropy_mask", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("whiten", "eps", [-1e-8, math.nan], "at least 0"),
]
