"""Rewards per token -> advantages per token. Time runs over VALID tokens: a hole in the mask is stepped over."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, group_moments
from clipo_ops._masking import whiten
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped


@shaped
def reinforce_plus_plus_advantages(
    token_rewards: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    discount: float = 1.0,
    eps: float = 1e-8,
) -> Float[Tensor, "rollouts tokens"]:
    r"""REINFORCE++: the discounted sum of the rewards from a token on, whitened over the batch's valid tokens.

    $$A_{it} = \operatorname{whiten}(G_{it}), \qquad G_{it} = r_{it} + \gamma G_{i,t+1}$$

    where $t + 1$ is the next valid token. See `whiten` and `token_level_rewards`.

    Args:
        token_rewards: Rewards per token, with a KL penalty where there is one. A rollout with a NaN at a valid token
            could not be scored: it is left out of the whitening, and its advantages are 0.
        mask: True where a token counts.
        discount: $\gamma$, in [0, 1].
        eps: Added to the variance, at least 0.

    Returns:
        Advantages of the rewards' dtype; 0 under a False mask.

    Raises:
        ValueError: `discount` outside [0, 1]; `eps` below 0.

    Source:
        REINFORCE++ (arXiv 2501.03262): $\gamma$ = 1.

    Examples:
        >>> rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> reinforce_plus_plus_advantages(rewards, torch.ones(2, 2).bool())
        tensor([[ 0.8660,  0.8660],
                [-0.8660, -0.8660]])
    """
    require(0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    require(eps >= 0, "eps", "a number of at least 0", eps)
    mask = mask & _scored(token_rewards, mask)
    rewards = torch.where(mask, at_least_float32(token_rewards), 0)
    returns = _sums_from_here(rewards, mask, discount)
    return rounded(whiten(returns, mask, eps=eps), token_rewards.dtype)


@shaped
def reinforce_plus_plus_baseline_advantages(
    rewards: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    groups: Groups,
    *,
    eps: float = 1e-8,
) -> Float[Tensor, "rollouts tokens"]:
    r"""REINFORCE++ with a baseline: the reward less its group's mean, whitened over the batch's valid tokens.

    $$A_{it} = \operatorname{whiten}(r_i - \bar r_{g_i})$$

    Long rollouts weigh more in the whitening's mean, which is therefore not quite 0 and shifts the advantages of
    constant groups too.

    Args:
        rewards: One reward per rollout; NaN or infinite for one that could not be scored, which is left out and gets 0.
        mask: True where a token counts.
        groups: Group ids or a `GroupLayout`.
        eps: Added to the variance, at least 0.

    Returns:
        Advantages of the rewards' dtype, one per token; 0 under a False mask.

    Raises:
        ValueError: `eps` below 0; `groups` for another number of rollouts.

    Source:
        REINFORCE++-baseline (arXiv 2501.03262).

    Examples:
        >>> rewards, groups = torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
        >>> reinforce_plus_plus_baseline_advantages(rewards, torch.ones(2, 2).bool(), groups)
        tensor([[ 0.8660,  0.8660],
                [-0.8660, -0.8660]])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    centered = group_moments(at_least_float32(rewards), groups).centered
    mask = mask & rewards.isfinite().unsqueeze(1)
    return rounded(whiten(centered.unsqueeze(1).expand_as(mask), mask, eps=eps), rewards.dtype)


class GeneralizedAdvantages(NamedTuple):
    """What `gae_advantages` gives.

    Attributes:
        advantages: For the policy.
        returns: What the values are to be trained towards.
    """

    advantages: Float[Tensor, "rollouts tokens"]
    returns: Float[Tensor, "rollouts tokens"]


@shaped
def gae_advantages(
    token_rewards: Float[Tensor, "rollouts tokens"],
    values: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    discount: float = 1.0,
    gae_lambda: float = 0.95,
) -> GeneralizedAdvantages:
    r"""Generalised advantage estimation: a decaying sum of the value function's errors.

    $$A_{it} = \delta_{it} + \gamma\lambda A_{i,t+1}, \qquad \delta_{it} = r_{it} + \gamma V_{i,t+1} - V_{it}, \qquad
    R_{it} = A_{it} + V_{it}$$

    where $t + 1$ is the next valid token; after the last one $A$ and $V$ are 0. Not whitened: see `whiten`.

    Args:
        token_rewards: Rewards per token, with a KL penalty where there is one. A rollout with a NaN at a valid token
            could not be scored: its advantages are 0, and its returns its values.
        values: $V$, the critic's values.
        mask: True where a token counts.
        discount: $\gamma$, in [0, 1].
        gae_lambda: $\lambda$, in [0, 1]: 0 trusts the values, 1 the rewards.

    Returns:
        Advantages and returns of the rewards' dtype, both DETACHED; 0 under a False mask.

    Raises:
        ValueError: `discount` or `gae_lambda` outside [0, 1].

    Source:
        High-Dimensional Continuous Control Using GAE (arXiv 1506.02438, eq. 16).

    Examples:
        >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.75]])
        >>> gae_advantages(rewards, values, torch.ones(1, 2).bool(), gae_lambda=1)
        GeneralizedAdvantages(advantages=tensor([[0.5000, 0.2500]]), returns=tensor([[1., 1.]]))
    """
    require(0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    require(0 <= gae_lambda <= 1, "gae_lambda", "a number in [0, 1]", gae_lambda)
    counts = mask & _scored(token_rewards, mask)
    rewards = torch.where(counts, at_least_float32(token_rewards.detach()), 0)
    known = torch.where(mask, at_least_float32(values.detach()), 0)
    upcoming = _shift(_scan(known, mask.logical_not().to(known.dtype)), 1)  # the value of the next valid token
    errors = torch.where(counts, rewards + discount * upcoming - known, 0)
    advantages = _sums_from_here(errors, counts, discount * gae_lambda)
    dtype = token_rewards.dtype
    return GeneralizedAdvantages(rounded(advantages, dtype), rounded(advantages + known, dtype))


def _scored(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """Whether a rollout has no NaN at a valid token, as a column."""
    return (token_rewards.isfinite() | mask.logical_not()).all(1, keepdim=True)


def _sums_from_here(values: Tensor, mask: Tensor, factor: float) -> Tensor:
    """At each valid token, its value plus the factor times the sum at the next valid one; 0 elsewhere."""
    factors = torch.where(mask, torch.full_like(values, factor), 1)
    return torch.where(mask, _scan(values, factors), 0)


def _scan(values: Tensor, factors: Tensor) -> Tensor:
    """Solves $y_t = v_t + f_t y_{t+1}$ over the tokens.

    By doubling: after a step of s places, y holds what comes of 2s places and f the product of theirs. Nothing is
    divided by a power of a factor, so nothing overflows. A graph takes 20 steps, enough for a million tokens, whatever
    the length: one graph then serves all lengths.
    """
    length = values.shape[1]
    steps = 20 if torch.compiler.is_compiling() else length.bit_length()
    for exponent in range(steps):
        values = values + factors * _shift(values, 2**exponent)
        factors = factors * _shift(factors, 2**exponent)
    return values


def _shift(values: Tensor, places: int) -> Tensor:
    """What stands some tokens further on; 0 beyond the end."""
    length = values.shape[1]
    source = torch.arange(length, device=values.device) + places
    return torch.where(source < length, values.index_select(1, source.clamp(max=length - 1)), 0)
