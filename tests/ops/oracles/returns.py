"""Rewards per token to advantages per token."""

import math
import statistics

from torch import Tensor

from ..examples import case
from ._common import tensor
from .advantages import less
from .masking import whiten


def places(mask: Tensor, i: int) -> list[int]:
    """The valid tokens of a rollout, last one first."""
    return [t for t, counts in reversed(list(enumerate(mask[i].tolist()))) if counts]


def scored_tokens(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """The mask without the rollouts that have a NaN at a valid token."""
    counts = mask.clone()
    for i in range(len(mask)):
        if any(math.isnan(token_rewards[i, t].item()) for t in places(mask, i)):
            counts[i] = False
    return counts


def reinforce_plus_plus_advantages(
    token_rewards: Tensor, mask: Tensor, *, discount: float = 1.0, eps: float = 1e-8
) -> Tensor:
    counts = scored_tokens(token_rewards, mask)
    returns = [[0.0] * mask.shape[1] for _ in mask]
    for i, row in enumerate(returns):
        following = 0.0
        for t in places(counts, i):
            following = row[t] = token_rewards[i, t].item() + discount * following
    return whiten(tensor(returns), counts, eps=eps)


def reinforce_plus_plus_baseline_advantages(
    rewards: Tensor, mask: Tensor, groups: Tensor, *, eps: float = 1e-8
) -> Tensor:
    values = rewards.tolist()
    centered = tensor(less(rewards, groups, lambda i, group: statistics.mean(values[j] for j in group)))
    counts = mask & rewards.isnan().logical_not().unsqueeze(1)
    return whiten(centered.unsqueeze(1).expand(mask.shape), counts, eps=eps)


def gae_advantages(
    token_rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float = 1.0, gae_lambda: float = 0.95
) -> tuple[Tensor, Tensor]:
    counts = scored_tokens(token_rewards, mask)
    advantages = [[0.0] * mask.shape[1] for _ in mask]
    returns = [[0.0] * mask.shape[1] for _ in mask]
    for i in range(len(mask)):
        value = advantage = 0.0
        for t in places(mask, i):
            error = token_rewards[i, t].item() + discount * value - values[i, t].item()
            advantage = error + discount * gae_lambda * advantage if counts[i, t] else 0.0
            value = values[i, t].item()
            advantages[i][t], returns[i][t] = advantage, advantage + value
    return tensor(advantages), tensor(returns)


CASES = [
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask"),
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask", discount=0.9),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=ids"),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=layout"),
    case("gae_advantages", "token_rewards=token_advantages values=logprobs mask", discount=0.9),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("gae_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("gae_advantages", "gae_lambda", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("reinforce_plus_plus_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("reinforce_plus_plus_advantages", "eps", [-1e-8, math.nan], "at least 0"),
    ("reinforce_plus_plus_baseline_advantages", "eps", [-1e-8, math.nan], "at least 0"),
]
