"""Rewards."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import clipo_ops

from ..examples import case
from ._common import chosen, mean, members, scored, standard_scores, tensor
from .contrastive import contrastive_loss


def contrastive_reward(loss: Tensor, *, weight: float = 0.2, floor: float = -0.5) -> Tensor:
    return tensor([max(-weight * value, floor) for value in loss.tolist()])


def overlong_penalty(lengths: Tensor, *, max_length: int, buffer: int, factor: float = 1.0) -> Tensor:
    soft = max_length - buffer
    return tensor([factor * min(0.0, max(-1.0, (soft - length) / buffer)) for length in lengths.tolist()])


def cosine_length_reward(
    lengths: Tensor,
    success: Tensor,
    *,
    max_length: int,
    correct_short: float = 1.0,
    correct_long: float = 0.5,
    incorrect_short: float = -1.0,
    incorrect_long: float = -0.5,
    exceeded: float | None = None,
) -> Tensor:
    rewards = []
    for length, correct in zip(lengths.tolist(), success.tolist(), strict=True):
        short, long = (correct_short, correct_long) if correct else (incorrect_short, incorrect_long)
        if length >= max_length:
            rewards.append(long if exceeded is None else exceeded)
        else:
            rewards.append(long + 0.5 * (short - long) * (1 + math.cos(length / max_length * math.pi)))
    return tensor(rewards)


def pass_rate_length_penalty(lengths: Tensor, success: Tensor, groups: Tensor, *, factor: float = 0.25) -> Tensor:
    values, correct = lengths.tolist(), success.tolist()
    rewards = [0.0] * len(values)
    for group in members(groups):
        longest, rate = max(values[i] for i in group), mean([correct[i] for i in group])
        for i in group:
            rewards[i] = -factor * rate * values[i] / max(longest, 1)
    return tensor(rewards)


def repetition_penalty(token_ids: Tensor, mask: Tensor, *, ngram_size: int = 3, factor: float = 1.0) -> Tensor:
    rewards = []
    for row in zip(token_ids.tolist(), mask.tolist(), strict=True):
        valid = chosen(*row)
        ngrams = [tuple(valid[t : t + ngram_size]) for t in range(len(valid) - ngram_size + 1)]
        rewards.append(-factor * (1 - len(set(ngrams)) / len(ngrams)) if ngrams else 0.0)
    return tensor(rewards)


def token_level_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    rows = [[0.0] * mask.shape[1] for _ in mask]
    for row, reward, counts in zip(rows, rewards.tolist(), mask.tolist(), strict=True):
        valid = [t for t, own in enumerate(counts) if own]
        if valid:
            row[valid[-1]] = reward
    return tensor(rows).view(mask.shape)


def informative_groups(rewards: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    informative = [False] * len(values)
    for group in scored(rewards, groups):
        for i in group:
            informative[i] = len({values[j] for j in group}) > 1
    return torch.tensor(informative)


def combine_rewards(
    rewards: Tensor,
    groups: Tensor,
    *,
    weights: Sequence[float] | None = None,
    method: str = "sum",
    eps: float = 1e-6,
) -> Tensor:
    columns = [column.tolist() for column in rewards.unbind(1)]
    if method == "gdpo":
        parts = [standard_scores(column, groups, eps) for column in rewards.unbind(1)]
    else:
        parts = [[0.0 if math.isnan(value) else value for value in column] for column in columns]
    factors = weights or [1.0] * len(parts)
    totals = [math.fsum(w * part[i] for w, part in zip(factors, parts, strict=True)) for i in range(len(rewards))]
    absent = [all(math.isnan(column[i]) for column in columns) for i in range(len(rewards))]
    return tensor([math.nan if missing else total for missing, total in zip(absent, totals, strict=True)])


def best_incorrect(i: int, rewards: Tensor, success: Tensor, groups: Tensor) -> float:
    (group,) = (group for group in scored(rewards, groups) if i in group)
    return max((rewards[j].item() for j in group if not success[j]), default=-math.inf)


def guarded_rewards(rewards: Tensor, success: Tensor, groups: Tensor, *, margin: float = 0.0) -> Tensor:
    values = rewards.tolist()
    for i, value in enumerate(values):
        if success[i] and not math.isnan(value):
            values[i] = max(value, best_incorrect(i, rewards, success, groups) + margin)
    return tensor(values)


def reward_inversions(rewards: Tensor, success: Tensor, groups: Tensor) -> Tensor:
    values = rewards.tolist()
    return torch.tensor(
        [
            bool(success[i]) and not math.isnan(value) and value < best_incorrect(i, rewards, success, groups)
            for i, value in enumerate(values)
        ]
    )


def clipo_rewards(outcome: Tensor, *batch: Tensor, weight: float = 0.2, floor: float = -0.5, **loss: object) -> Tensor:
    losses = contrastive_loss(*batch, **loss)
    pairs = zip(outcome.tolist(), losses.tolist(), strict=True)
    return tensor([reward + max(-weight * own, floor) for reward, own in pairs])


CASES = [
    case("contrastive_reward", "loss"),
    case("combine_rewards", "rewards=signals groups=ids"),
    case("combine_rewards", "rewards=signals groups=layout", method="gdpo", weights=(1.0, 0.5)),
    case("informative_groups", "rewards groups=ids"),
    case("informative_groups", "rewards groups=layout"),
    case("guarded_rewards", "rewards success groups=ids"),
    case("guarded_rewards", "rewards success groups=layout", margin=0.1),
    case("reward_inversions", "rewards success groups=ids"),
    case("reward_inversions", "rewards success groups=layout"),
    case("overlong_penalty", "lengths", max_length=6, buffer=3),
    case("cosine_length_reward", "lengths success", max_length=6),
    case("cosine_length_reward", "lengths success", max_length=5, exceeded=-2.0),
    case("pass_rate_length_penalty", "lengths success groups=ids"),
    case("pass_rate_length_penalty", "lengths success groups=layout", factor=0.3),
    case("repetition_penalty", "token_ids mask", ngram_size=1),
    case("repetition_penalty", "token_ids mask", ngram_size=2),
    case("token_level_rewards", "rewards mask"),
    case("clipo_rewards", "outcome=rewards embeddings success=two_correct groups=ordered"),
    case("clipo_rewards", "outcome=rewards embeddings success groups=layout", objective=clipo_ops.supcon_out),
]


# Laying ids out reads the number of groups from the device: eager mode only.
EAGER_CASES = [
    case("clipo_rewards", "outcome=rewards embeddings success groups=ids", objective=clipo_ops.supcon_out),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("clipo_rewards", "floor", [0.1], "at most 0"),
    ("clipo_rewards", "temperature", [0], "above 0"),
    ("combine_rewards", "eps", [-1e-6, math.nan], "at least 0"),
    ("combine_rewards", "weights", [(), (1.0,)], "one number per signal"),
    ("contrastive_reward", "floor", [0.1, math.nan], "at most 0"),
    ("contrastive_reward", "weight", [-0.1, math.nan], "at least 0"),
    ("cosine_length_reward", "max_length", [0, -1], "at least 1"),
    ("guarded_rewards", "margin", [-0.1, math.nan], "at least 0"),
    ("overlong_penalty", "buffer", [0, -1, 7], "from 1 to max_length"),
    ("overlong_penalty", "factor", [-0.1, math.nan], "at least 0"),
    ("overlong_penalty", "max_length", [0, -1], "at least 1"),
    ("pass_rate_length_penalty", "factor", [-0.1, math.nan], "at least 0"),
    ("repetition_penalty", "factor", [-0.1, math.nan], "at least 0"),
    ("repetition_penalty", "ngram_size", [0, -1], "at least 1"),
]
