"""Rewards less a baseline taken from the same group."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, group_moments, standardized, weighted_centered
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._rewards.combination import informative_groups
from clipo_ops._typing import require, shaped

Scale = Literal["group", "batch", "none"]


@shaped
def grpo_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    scale: Scale = "group",
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Group-relative advantages: the reward less its group's mean, over a standard deviation.

    $$A_i = \frac{r_i - \bar r_{g_i}}{\sigma + \epsilon}$$

    The advantages of a group add up to 0. A group of one constant reward, a singleton included, has advantage exactly
    0, whatever the reward and the scale: rounding errors are never divided by $\epsilon$.

    Args:
        rewards: One reward per rollout; NaN = not known.
        groups: Group ids or a layout.
        scale: The deviation $\sigma$: `"group"`, of the group's rewards; `"batch"`, of all rewards given; `"none"`
            divides by nothing. Deviations are sample ones (n - 1).
        eps: $\epsilon$, at least 0, in units of the reward. Rewards that differ by much less than it are not scaled up
            to unit advantages.

    Returns:
        Advantages of the rewards' dtype.

    Raises:
        ValueError: Unknown `scale`; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2); `scale="none"` is Dr. GRPO (arXiv 2503.20783,
        section 3.2).

    Examples:
        >>> rewards = torch.tensor([1.0, 0.0, 0.0, 0.7, 0.7])
        >>> grpo_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
        tensor([ 1.1547, -0.5773, -0.5773,  0.0000,  0.0000])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    values = at_least_float32(rewards)
    group = group_moments(values, groups)
    if scale == "none":
        return rounded(group.centered, rewards.dtype)
    whole_batch = torch.zeros_like(values, dtype=torch.int64)
    variance = group.variance if scale == "group" else group_moments(values, whole_batch).variance
    return rounded(standardized(group.centered, variance, eps), rewards.dtype)


@shaped
def rloo_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Leave-one-out advantages: the reward less the mean reward of the group's other rollouts.

    $$A_i = r_i - \frac{1}{n - 1}\sum_{j \ne i} r_j = \frac{n}{n - 1}(r_i - \bar r_{g_i})$$

    The baseline does not depend on the rollout itself, so the policy gradient stays unbiased.

    Args:
        rewards: One reward per rollout; NaN = not known.
        groups: Group ids or a layout.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group and in a group of one.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Back to Basics (RLOO, arXiv 2402.14740, section 2.3).

    Examples:
        >>> rloo_advantages(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 0]))
        tensor([ 0.7500, -0.7500,  0.0000])
    """
    group = group_moments(at_least_float32(rewards), groups)
    return rounded(group.size / (group.size - 1).clamp(min=1) * group.centered, rewards.dtype)


@shaped
def opo_advantages(
    rewards: Float[Tensor, " rollouts"],
    lengths: Int[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Advantages over the baseline of least variance: the group's mean reward, weighted by length.

    $$A_i = r_i - \frac{\sum_{j \in g_i} l_j r_j}{\sum_{j \in g_i} l_j}$$

    The baseline is optimal if the squared norm of a rollout's score function grows in proportion to its length. The
    advantages times the lengths add up to 0 in a group.

    Args:
        rewards: One reward per rollout; NaN = not known.
        lengths: $l$, the valid tokens of each rollout, at least 0.
        groups: Group ids or a layout.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group, and in a group without a token.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        On-Policy RL with Optimal Reward Baseline (arXiv 2505.23585); formula as in verl's `opo`.

    Examples:
        >>> opo_advantages(torch.tensor([1.0, 0.0]), torch.tensor([3, 1]), torch.tensor([0, 0]))
        tensor([ 0.2500, -0.7500])
    """
    values = at_least_float32(rewards)
    return rounded(weighted_centered(values, lengths.to(values.dtype), groups), rewards.dtype)


@shaped
def maxrl_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Maximum-likelihood advantages: the reward relative to its group's mean.

    $$A_i = \frac{r_i - \bar r_{g_i}}{\bar r_{g_i} + \epsilon}$$

    With rewards in {0, 1} and $n$ rollouts in a group, the expected policy gradient is that of the first $n - 1$ terms
    of $\log p = -\sum_{k \ge 1} (1 - p)^k / k$, where $p$ is the chance of a correct answer. GRPO and RLOO stop at the
    first term, $p$; the more terms, the closer the weight of a hard prompt comes to $1/p$.

    Args:
        rewards: One reward per rollout, at least 0; NaN = not known.
        groups: Group ids or a layout.
        eps: $\epsilon$, at least 0, in units of the reward.

    Returns:
        Advantages of the rewards' dtype, from -1 to the group's size - 1; exactly 0 in a constant group, and in one
        whose mean is not above 0, which penalties can cause.

    Raises:
        ValueError: `eps` below 0; `groups` for another number of rollouts.

    Source:
        Maximum Likelihood Reinforcement Learning (arXiv 2602.02710); $\epsilon$ as in its code.

    Examples:
        >>> maxrl_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0]), eps=0)
        tensor([ 3., -1., -1., -1.])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    group = group_moments(at_least_float32(rewards), groups)
    positive = group.mean > 0
    relative = group.centered / (torch.where(positive, group.mean, 1) + eps)
    return rounded(torch.where(positive, relative, 0), rewards.dtype)


@shaped
def gpg_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    divisor: float = 1.0,
) -> Float[Tensor, " rollouts"]:
    r"""Mean-centred rewards, rescaled to offset rollouts that contribute no gradient.

    $$A_i = \frac{\alpha}{F}(r_i - \bar r_{g_i}), \qquad
    \alpha = \frac{\#\{j\}}{\#\{j : \text{the rewards of } g_j \text{ differ}\}}$$

    A loss that averages over all rollouts then has the gradient of the average over the rollouts of informative groups,
    however many groups are all correct or all incorrect.

    Args:
        rewards: One reward per rollout; NaN = not known.
        groups: Group ids or a layout.
        divisor: $F$, above 0.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group.

    Raises:
        ValueError: `divisor` not above 0; `groups` for another number of rollouts.

    Source:
        GPG (arXiv 2504.02546, section 2): $F$ = 1. The rollouts that $\alpha$ counts are those of `informative_groups`.

    Examples:
        >>> gpg_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        tensor([ 1., -1.,  0.,  0.])
    """
    require(divisor > 0, "divisor", "a number above 0", divisor)
    centered = group_moments(at_least_float32(rewards), groups).centered
    informative = informative_groups(rewards, groups).sum().clamp(min=1)
    alpha = len(rewards) / informative.to(centered.dtype)
    return rounded(alpha / divisor * centered, rewards.dtype)


@shaped
def corpo_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    threshold: float,
) -> Float[Tensor, " rollouts"]:
    r"""Correctness-relative advantages: the baseline is the group's mean, but at least what a correct answer earns.

    $$A_i = r_i - \max(\bar r_{g_i}, R_{\min})$$

    With graded rewards, the mean of a weak group rewards the best of its incorrect rollouts. Here a reward below
    $R_{\min}$ always has a negative advantage; once the group's mean has passed $R_{\min}$, this is
    `grpo_advantages` with `scale="none"`. A constant group below $R_{\min}$ keeps its negative advantage.

    Args:
        rewards: One graded reward per rollout; NaN = not known.
        groups: Group ids or a layout.
        threshold: $R_{\min}$, the least reward of a correct rollout, in units of the reward.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group that is not below the threshold.

    Raises:
        ValueError: `threshold` not finite; `groups` for another number of rollouts.

    Source:
        CoRPO (arXiv 2511.04439); formula as in three implementations that quote its eq. 11. The paper divides by no
        deviation.

    Examples:
        >>> rewards = torch.tensor([-0.7, -1.0, -1.0, 1.0, 2.0, 3.0])
        >>> corpo_advantages(rewards, torch.tensor([0, 0, 0, 1, 1, 1]), threshold=0.0)
        tensor([-0.7000, -1.0000, -1.0000, -1.0000,  0.0000,  1.0000])
    """
    require(-math.inf < threshold < math.inf, "threshold", "a finite number", threshold)
    values = at_least_float32(rewards)
    group = group_moments(values, groups)
    short = torch.where(values.isfinite(), values - threshold, 0)
    return rounded(torch.where(group.mean < threshold, short, group.centered), rewards.dtype)
