"""Advantages with a critic, and what the critic learns."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._masking import AggregationMode, aggregate, sequence_lengths
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._returns.scan import discounted_sums, next_values, scored
from clipo_ops._typing import require, shaped


class GeneralizedAdvantages(NamedTuple):
    """What `gae_advantages` returns.

    Attributes:
        advantages: For the policy.
        returns: The targets of the values.
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
    gae_lambda: float | Float[Tensor, " rollouts"] = 0.95,
) -> GeneralizedAdvantages:
    r"""Generalised advantage estimation: a decaying sum of the value function's errors.

    $$A_{it} = \delta_{it} + \gamma\lambda A_{i,t+1}, \qquad \delta_{it} = r_{it} + \gamma V_{i,t+1} - V_{it}, \qquad
    R_{it} = A_{it} + V_{it}$$

    where $t + 1$ is the next valid token; after the last one $A$ and $V$ are 0. Not whitened: see `whiten`.

    Args:
        token_rewards: Rewards per token, with a KL penalty where there is one. A rollout with NaN at a valid token
            is not known: its advantages are 0, and its returns its values.
        values: $V$, the critic's values.
        mask: True where a token counts.
        discount: $\gamma$, in [0, 1].
        gae_lambda: $\lambda$, in [0, 1]: 0 trusts the values, 1 the rewards. One number, or one per rollout, as from
            `length_adaptive_lambda`.

    Returns:
        Detached advantages and returns of the rewards' dtype; 0 under a False mask.

    Raises:
        ValueError: `discount`, or a `gae_lambda` that is a number, outside [0, 1].

    Source:
        High-Dimensional Continuous Control Using GAE (arXiv 1506.02438, eq. 16).

    Examples:
        >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.75]])
        >>> gae_advantages(rewards, values, torch.ones(1, 2).bool(), gae_lambda=1)
        GeneralizedAdvantages(advantages=tensor([[0.5000, 0.2500]]), returns=tensor([[1., 1.]]))
    """
    require(0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    if isinstance(gae_lambda, Tensor):
        gae_lambda = gae_lambda.detach().unsqueeze(1)
    else:
        require(0 <= gae_lambda <= 1, "gae_lambda", "a number in [0, 1]", gae_lambda)
    counts = mask & scored(token_rewards, mask)
    rewards = torch.where(counts, at_least_float32(token_rewards.detach()), 0)
    known = torch.where(mask, at_least_float32(values.detach()), 0)
    errors = torch.where(counts, rewards + discount * next_values(known, mask) - known, 0)
    advantages = discounted_sums(errors, counts, discount * gae_lambda)
    dtype = token_rewards.dtype
    return GeneralizedAdvantages(rounded(advantages, dtype), rounded(advantages + known, dtype))


@shaped
def length_adaptive_lambda(
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    alpha: float = 0.05,
) -> Float[Tensor, " rollouts"]:
    r"""A $\lambda$ for `gae_advantages` that grows with the length of the response.

    $$\lambda_i = \max\Bigl(0,\; 1 - \frac{1}{\alpha\, l_i}\Bigr)$$

    with $l_i$ the valid tokens of rollout $i$. The weights $\lambda^t$ then add up to $\alpha l_i$: the horizon of the
    estimate is a fixed share of the response. VAPO uses it for the policy and $\lambda$ = 1 for the critic: call
    `gae_advantages` twice.

    Args:
        mask: True where a token counts.
        alpha: $\alpha$, above 0.

    Returns:
        One float32 number in [0, 1) per rollout; 0 for responses of at most $1 / \alpha$ tokens.

    Raises:
        ValueError: `alpha` not above 0.

    Source:
        VAPO (arXiv 2504.05118), Length-Adaptive GAE; formula as in AReaL's `vapo_length_adaptive_gae`, the default of
        $\alpha$ as in open-instruct.

    Examples:
        >>> mask = torch.arange(400) < torch.tensor([[40], [400], [4]])
        >>> length_adaptive_lambda(mask)
        tensor([0.5000, 0.9500, 0.0000])
    """
    require(alpha > 0, "alpha", "a number above 0", alpha)
    lengths = sequence_lengths(mask).float()
    return (1 - 1 / (alpha * lengths)).clamp(min=0)


@shaped
def clipped_value_loss(
    values: Float[Tensor, "rollouts tokens"],
    old_values: Float[Tensor, "rollouts tokens"],
    returns: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon: float = 0.2,
    aggregation: AggregationMode = "token-mean",
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""The critic's squared error, where moving away from the old value earns nothing beyond a bound.

    $$\ell_{it} = \tfrac12 \max\bigl((V_{it} - R_{it})^2,\;
    (\operatorname{clip}(V_{it},\, V^{\text{old}}_{it} - \epsilon,\, V^{\text{old}}_{it} + \epsilon) - R_{it})^2\bigr)$$

    Args:
        values: $V$, the critic's values.
        old_values: $V^{\text{old}}$, its values when the rollouts were sampled; a constant.
        returns: $R$, the targets, as from `gae_advantages`; a constant.
        mask: True where a token counts.
        epsilon: $\epsilon$, above 0, in units of the values; infinite for no clipping.
        aggregation: How `aggregate` makes one number of it.
        denominator: As in `aggregate`.

    Returns:
        The loss, a scalar in at least float32.

    Raises:
        ValueError: `epsilon` not above 0; unknown `aggregation`.

    Source:
        Formula as in verl's `compute_value_loss` and OpenAI's baselines `ppo2`; PPO's paper has no clipped value loss.

    Examples:
        >>> values, old_values = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 0.5]])
        >>> clipped_value_loss(values, old_values, torch.tensor([[1.0, 1.0]]), torch.ones(1, 2).bool())
        tensor(0.2225)
    """
    require(epsilon > 0, "epsilon", "a number above 0", epsilon)
    values, old, targets = (
        torch.where(mask, at_least_float32(x), 0) for x in (values, old_values.detach(), returns.detach())
    )
    clipped = values.clamp(old - epsilon, old + epsilon)
    loss = torch.maximum((values - targets).square(), (clipped - targets).square()) / 2
    return aggregate(loss, mask, mode=aggregation, denominator=denominator)
