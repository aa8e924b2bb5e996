"""Rewards per token to advantages per token."""

import math
import statistics

import torch
from torch import Tensor

from ..examples import case
from ._common import less, members, standard_scores, tensor
from .masking import aggregate, whiten


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


def optimal_token_baseline_advantages(
    token_rewards: Tensor, old_logprobs: Tensor, collision_probs: Tensor, mask: Tensor, groups: Tensor
) -> Tensor:
    counts = scored_tokens(token_rewards, mask)
    advantages = [[0.0] * mask.shape[1] for _ in mask]
    for group in members(groups):
        rows = {i: places(counts, i)[::-1] for i in group}
        for n in range(mask.shape[1]):
            returns, weights = {}, {}
            for i in group:
                if n < len(rows[i]):
                    returns[i] = math.fsum(token_rewards[i, t].item() for t in rows[i][n:])
                    so_far = [(math.exp(old_logprobs[i, t]), collision_probs[i, t].item()) for t in rows[i][: n + 1]]
                    weights[i] = math.fsum(max(0.0, 1 - 2 * prob + collision) for prob, collision in so_far)
            total = math.fsum(weights.values())
            if total > 0 and len(set(returns.values())) > 1:
                baseline = math.fsum(weights[i] * returns[i] for i in returns) / total
                for i in returns:
                    advantages[i][rows[i][n]] = returns[i] - baseline
    return tensor(advantages)


def gae_advantages(
    token_rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float = 1.0, gae_lambda: float | Tensor = 0.95
) -> tuple[Tensor, Tensor]:
    decays = [discount * float(rate) for rate in gae_lambda] if isinstance(gae_lambda, Tensor) else None
    counts = scored_tokens(token_rewards, mask)
    advantages = [[0.0] * mask.shape[1] for _ in mask]
    returns = [[0.0] * mask.shape[1] for _ in mask]
    for i in range(len(mask)):
        value = advantage = 0.0
        for t in places(mask, i):
            error = token_rewards[i, t].item() + discount * value - values[i, t].item()
            decay = decays[i] if decays is not None else discount * float(gae_lambda)
            advantage = error + decay * advantage if counts[i, t] else 0.0
            value = values[i, t].item()
            advantages[i][t], returns[i][t] = advantage, advantage + value
    return tensor(advantages), tensor(returns)


def length_adaptive_lambda(mask: Tensor, *, alpha: float = 0.05) -> Tensor:
    lengths = [sum(row) for row in mask.tolist()]
    return tensor([max(0.0, 1 - 1 / (alpha * length)) if length else 0.0 for length in lengths])


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    epsilon: float = 0.2,
    aggregation: str = "token-mean",
    denominator: float | None = None,
) -> Tensor:
    losses = [[0.0] * mask.shape[1] for _ in mask]
    for i in range(len(mask)):
        for t in places(mask, i):
            value, old, target = values[i, t].item(), old_values[i, t].item(), returns[i, t].item()
            clipped = min(max(value, old - epsilon), old + epsilon)
            losses[i][t] = max((value - target) ** 2, (clipped - target) ** 2) / 2
    return aggregate(tensor(losses), mask, mode=aggregation, denominator=denominator)


def gigpo_advantages(
    step_rewards: Tensor,
    states: Tensor,
    mask: Tensor,
    groups: Tensor,
    *,
    discount: float = 0.95,
    step_weight: float = 1.0,
    scale: str = "none",
    eps: float = 1e-6,
) -> Tensor:
    def relative(values: list[float], ids: list[int]) -> list[float]:
        rewards, group = tensor(values), torch.tensor(ids)
        if scale == "group":
            return standard_scores(rewards, group, eps)
        return less(rewards, group, lambda i, own: statistics.mean(values[j] for j in own))

    counts = scored_tokens(step_rewards, mask)
    episodes = [math.nan] * len(mask)
    taken: list[tuple[int, int]] = []
    returns: list[float] = []
    for i in range(len(mask)):
        following, own = 0.0, places(counts, i)
        episodes[i] = math.fsum(step_rewards[i, t].item() for t in own) if own else math.nan
        for t in own:
            following = step_rewards[i, t].item() + discount * following
            taken.append((i, t))
            returns.append(following)
    pairs = [(int(groups[i]), int(states[i, t])) for i, t in taken]
    per_episode = relative(episodes, groups.tolist())
    per_step = relative(returns, [pairs.index(pair) for pair in pairs])
    advantages = [[0.0] * mask.shape[1] for _ in mask]
    for (i, t), step in zip(taken, per_step, strict=True):
        advantages[i][t] = per_episode[i] + step_weight * step
    return tensor(advantages)


_POLICY = "old_logprobs collision_probs"
CASES = [
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask"),
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask", discount=0.9),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=ids"),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=layout"),
    case("gae_advantages", "token_rewards=token_advantages values=logprobs mask", discount=0.9),
    case("gae_advantages", "token_rewards=token_advantages values=logprobs mask gae_lambda=rates"),
    case("optimal_token_baseline_advantages", f"token_rewards=token_advantages {_POLICY} mask groups=ids"),
    case("optimal_token_baseline_advantages", f"token_rewards=token_advantages {_POLICY} mask groups=layout"),
    case("length_adaptive_lambda", "mask", alpha=0.5),
    case("clipped_value_loss", "values=logprobs old_values=old_logprobs returns=ref_logprobs mask"),
    case(
        "clipped_value_loss",
        "values=logprobs old_values=old_logprobs returns=ref_logprobs mask denominator",
        aggregation="seq-mean-token-sum",
    ),
    case("gigpo_advantages", "step_rewards=token_advantages states=token_ids mask groups=ids"),
    case("gigpo_advantages", "step_rewards=token_advantages states=token_ids mask groups=layout", scale="group"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("clipped_value_loss", "epsilon", [0, -1, math.nan], "above 0"),
    ("gigpo_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("gigpo_advantages", "step_weight", [-1, math.nan], "at least 0"),
    ("gigpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("length_adaptive_lambda", "alpha", [0, -1, math.nan], "above 0"),
    ("gae_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("gae_advantages", "gae_lambda", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("reinforce_plus_plus_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("reinforce_plus_plus_advantages", "eps", [-1e-8, math.nan], "at least 0"),
    ("reinforce_plus_plus_baseline_advantages", "eps", [-1e-8, math.nan], "at least 0"),
]
