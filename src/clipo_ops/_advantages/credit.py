"""Advantages from a greedy answer or several signals, and what they do to correct rollouts."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, standardized
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._rewards.combination import combine_rewards
from clipo_ops._typing import require, shaped


@shaped
def remax_advantages(
    rewards: Float[Tensor, " rollouts"],
    greedy_rewards: Float[Tensor, " rollouts"],
) -> Float[Tensor, " rollouts"]:
    r"""Advantages over the greedy answer: the reward less that of the greedily decoded answer to the same prompt.

    $$A_i = r_i - r(y^{\text{greedy}}_i)$$

    Args:
        rewards: One reward per rollout; NaN = not known.
        greedy_rewards: For each rollout, the reward of its prompt's greedily decoded answer; NaN = not known.

    Returns:
        Advantages of the rewards' dtype; 0 where either reward is not known.

    Source:
        ReMax (arXiv 2310.10505, section 4).

    Examples:
        >>> remax_advantages(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
        tensor([ 0., -1.])
    """
    difference = at_least_float32(rewards) - at_least_float32(greedy_rewards)
    return rounded(torch.where(difference.isfinite(), difference, 0), rewards.dtype)


@shaped
def gdpo_advantages(
    rewards: Float[Tensor, "rollouts signals"],
    groups: Groups,
    *,
    weights: Sequence[float] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Advantages of several signals: each standardised in its group, added up, then divided by the batch's deviation.

    $$A_i = \frac{s_i}{\sigma_s + \epsilon}, \qquad
    s_i = \sum_k w_k \frac{r_{ik} - \bar r_{g_i k}}{\sigma_{g_i k} + \epsilon}$$

    $\sigma_s$ is the sample deviation of $s$ over the batch's rollouts. The mean of $s$ is 0 already, as each signal's
    is in every group, so it is not subtracted: groups in which nothing differs keep an advantage of exactly 0.

    Every signal must mean the same for all rollouts. One that is 0 for incorrect rollouts and at most 0 for correct
    ones, as the contrastive reward, prefers the incorrect ones: its z-score cancels the outcome's, and the division by
    $\sigma_s$ blows up what rounding leaves. Give NaN for "signal not given"
    (`torch.where(success, contrastive, torch.nan)`): it then ranks the correct rollouts among themselves. Or add the
    signals before `grpo_advantages`, as CLIPO does.

    Args:
        rewards: The signals of each rollout; NaN = not given: it is in no baseline and adds nothing.
        groups: Group ids or a layout.
        weights: $w_k$, one number per signal; 1 each when not given. Only their ratios matter.
        eps: $\epsilon$, at least 0.

    Returns:
        Advantages of the signals' dtype; 0 for a rollout without any signal.

    Raises:
        ValueError: Not one weight per signal; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GDPO (arXiv 2601.05242, eqs. 4 to 6).

    Examples:
        >>> rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 9.0], [1.0, 3.0]])
        >>> gdpo_advantages(rewards, torch.tensor([0, 0, 1, 1]))
        tensor([ 0.8660, -0.8660,  0.8660, -0.8660])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    scores = combine_rewards(at_least_float32(rewards), groups, weights=weights, method="gdpo", eps=eps)
    known = scores.isfinite()
    centered = torch.where(known, scores, 0)
    variance = centered.square().sum() / (known.sum() - 1).clamp(min=1)
    return rounded(standardized(centered, variance, eps), rewards.dtype)


@shaped
def negative_credit(
    advantages: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
) -> Bool[Tensor, " rollouts"]:
    r"""Which correct rollouts the policy is trained away from.

    $$m_i = [i \text{ correct},\; A_i < 0]$$

    With outcome rewards alone it never happens. With further rewards it does, where a correct rollout falls below its
    group's mean; see `guarded_rewards` for what bounds it.

    Args:
        advantages: One per rollout.
        success: True for correct rollouts.

    Returns:
        True for correct rollouts with a negative advantage.

    Source:
        Ours; see `guarded_rewards`.

    Examples:
        >>> negative_credit(torch.tensor([0.5, -0.1, -0.4]), torch.tensor([True, True, False]))
        tensor([False,  True, False])
    """
    return success & (advantages < 0)
