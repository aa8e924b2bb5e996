"""Advantages per token without a critic."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, group_moments, weighted_centered
from clipo_ops._masking import whiten
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._returns.scan import discounted_sums, scored
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
        token_rewards: Rewards per token, with a KL penalty where there is one. A rollout with NaN at a valid token
            is not known: it is left out of the whitening, and its advantages are 0.
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
    counts = mask & scored(token_rewards, mask)
    rewards = torch.where(counts, at_least_float32(token_rewards), 0)
    returns = discounted_sums(rewards, counts, discount)
    return rounded(whiten(returns, counts, eps=eps), token_rewards.dtype)


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

    Long rollouts weigh more in the whitening's mean. It is therefore not quite 0, and constant groups get a small
    advantage too.

    Args:
        rewards: One reward per rollout; NaN = not known.
        mask: True where a token counts.
        groups: Group ids or a layout.
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
    counts = mask & rewards.isfinite().unsqueeze(1)
    return rounded(whiten(centered.unsqueeze(1).expand_as(mask), counts, eps=eps), rewards.dtype)


@shaped
def optimal_token_baseline_advantages(
    token_rewards: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    collision_probs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    groups: Groups,
) -> Float[Tensor, "rollouts tokens"]:
    r"""Returns less the baseline of least variance at each token: the group's returns, weighted by gradient energy.

    $$A_{it} = G_{it} - \frac{\sum_{j \in g_i} W_{jt} G_{jt}}{\sum_{j \in g_i} W_{jt}}, \qquad
    G_{it} = \sum_{s \ge t} r_{is}, \qquad
    W_{it} = \sum_{s \le t} \Bigl(1 - 2 \pi_{is} + \sum_v \pi_{is}(v)^2\Bigr)$$

    Each term of $W$ is the squared norm of the gradient of $\log \pi_{is}$ by the logits. Tokens are compared with the
    tokens of the group at the same place, counted over valid tokens; rollouts that have ended are out of the baseline.

    Args:
        token_rewards: Rewards per token. A rollout with NaN at a valid token is not known: it is in no baseline, and
            its advantages are 0.
        old_logprobs: $\log \pi_{it}$ of the sampled tokens under the policy that sampled.
        collision_probs: $\sum_v \pi_{it}(v)^2$ over the vocabulary:
            `torch.exp(torch.logsumexp(2 * logits, -1) - 2 * torch.logsumexp(logits, -1))`.
        mask: True where a token counts.
        groups: Group ids or a layout.

    Returns:
        Detached advantages of the rewards' dtype; exactly 0 under a False mask, at places where the group's returns do
        not differ, at those that one rollout alone has reached, and where no rollout has a gradient yet.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        The Optimal Token Baseline (arXiv 2602.07078); formula as in verl's `tir_optimal_token_baseline`, which gives a
        rollout without others its return instead of 0.

    Examples:
        >>> rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> old_logprobs = torch.tensor([[0.5, 0.5], [0.25, 0.25]]).log()
        >>> collision_probs = torch.tensor([[0.5, 0.5], [0.25, 0.25]])
        >>> mask, groups = torch.ones(2, 2).bool(), torch.tensor([0, 0])
        >>> optimal_token_baseline_advantages(rewards, old_logprobs, collision_probs, mask, groups)
        tensor([[ 0.6000,  0.6000],
                [-0.4000, -0.4000]])
    """
    counts = mask & scored(token_rewards, mask)
    dtype = at_least_float32(token_rewards).dtype
    rewards = torch.where(counts, token_rewards.detach().to(dtype), 0)
    probs = torch.where(counts, old_logprobs.detach().to(dtype), 0).exp()
    energy = (1 - 2 * probs + collision_probs.detach().to(dtype)).clamp(min=0)
    returns = discounted_sums(rewards, counts, 1.0)
    weights = torch.where(counts, energy, 0).cumsum(1)
    # The n-th valid tokens of all rollouts in one column.
    order = counts.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    aligned = torch.where(counts, returns, torch.nan).gather(1, order)
    advantages = weighted_centered(aligned, weights.gather(1, order), groups)
    return rounded(torch.zeros_like(advantages).scatter(1, order, advantages), token_rewards.dtype)
