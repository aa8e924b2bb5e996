"""Rewards -> advantages, one function per estimator."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, group_moments, group_reducer, group_zscores, standardized
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._rewards.combination import combine_rewards, informative_groups
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

    The advantages of a group add up to 0. A group of one constant reward, a singleton included, has advantage EXACTLY
    0, whatever the reward and the scale: rounding is not divided by $\epsilon$.

    Args:
        rewards: One reward per rollout; NaN or infinite for one without a score, which is left out of the baseline
            and has advantage 0.
        groups: Group ids or a `GroupLayout`.
        scale: What $\sigma$ is: `"group"`, the standard deviation of the group's rewards; `"batch"`, that of all
            rewards given; `"none"` divides by nothing. Deviations are sample ones (n - 1).
        eps: $\epsilon$, at least 0, in units of the reward. Rewards that differ by much less than it are not scaled up
            to unit advantages.

    Returns:
        Advantages of the rewards' dtype, computed in at least float32.

    Raises:
        ValueError: Unknown `scale`; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2); `scale="none"` is Dr. GRPO (arXiv 2503.20783).

    Examples:
        >>> rewards = torch.tensor([1.0, 0.0, 0.0, 0.7, 0.7])
        >>> grpo_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
        tensor([ 1.1547, -0.5773, -0.5773,  0.0000,  0.0000])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    values = at_least_float32(rewards)
    if scale == "group":
        return rounded(group_zscores(values, groups, eps), rewards.dtype)
    centered = group_moments(values, groups).centered
    if scale == "none":
        return rounded(centered, rewards.dtype)
    batch = group_moments(values, torch.zeros_like(values, dtype=torch.int64))
    variance = batch.squares / (batch.size - 1).clamp(min=1)
    return rounded(standardized(centered, variance, eps), rewards.dtype)


@shaped
def rloo_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Leave-one-out advantages: the reward less the mean reward of the group's OTHER rollouts.

    $$A_i = r_i - \frac{1}{n - 1}\sum_{j \ne i} r_j = \frac{n}{n - 1}(r_i - \bar r_{g_i})$$

    The baseline does not depend on the rollout itself, so the estimate of the gradient is unbiased.

    Args:
        rewards: One reward per rollout; NaN or infinite for one without a score, which is in no baseline and gets 0.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group and for a rollout without others.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Back to Basics (RLOO, arXiv 2402.14740, section 3.3).

    Examples:
        >>> rloo_advantages(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 0]))
        tensor([ 0.7500, -0.7500,  0.0000])
    """
    centered, _, size = group_moments(at_least_float32(rewards), groups)
    return rounded(centered * (size / (size - 1).clamp(min=1)), rewards.dtype)


@shaped
def opo_advantages(
    rewards: Float[Tensor, " rollouts"],
    lengths: Int[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Advantages over the baseline of least variance: the group's mean reward, weighted by length.

    $$A_i = r_i - \frac{\sum_{j \in g_i} l_j r_j}{\sum_{j \in g_i} l_j}$$

    It is the optimal baseline if the squared norm of a rollout's score function grows with its length. The advantages
    times the lengths add up to 0 in a group.

    Args:
        rewards: One reward per rollout; NaN or infinite for one without a score, which is in no baseline and gets 0.
        lengths: $l$, the valid tokens of each rollout, at least 0.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group, and in one without a token.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        On-Policy RL with Optimal Reward Baseline (arXiv 2505.23585, section 3).

    Examples:
        >>> opo_advantages(torch.tensor([1.0, 0.0]), torch.tensor([3, 1]), torch.tensor([0, 0]))
        tensor([ 0.2500, -0.7500])
    """
    centered = group_moments(at_least_float32(rewards), groups).centered
    known = rewards.isfinite()
    over_group = group_reducer(groups, len(rewards))
    weight = torch.where(known, lengths, 0).to(centered.dtype)
    total = over_group(weight, "sum")
    baseline = over_group(weight * centered, "sum") / total.clamp(min=1)
    return rounded(torch.where(known & (total > 0), centered - baseline, 0), rewards.dtype)


@shaped
def maxrl_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Maximum-likelihood advantages: the reward relative to its group's mean.

    $$A_i = \frac{r_i - \bar r_{g_i}}{\bar r_{g_i} + \epsilon}$$

    With rewards in {0, 1} the policy gradient follows $\log p$ of a correct answer, to the order of the group's size,
    where GRPO and RLOO follow $p$: hard prompts weigh $1/p$ times as much.

    Args:
        rewards: One reward per rollout, at least 0; NaN or infinite for one without a score, which is in no baseline
            and gets 0.
        groups: Group ids or a `GroupLayout`.
        eps: $\epsilon$, at least 0, in units of the reward.

    Returns:
        Advantages of the rewards' dtype, from -1 to the group's size - 1; exactly 0 in a constant group, and in one
        whose mean is not above 0, which penalties can bring about.

    Raises:
        ValueError: `eps` below 0; `groups` for another number of rollouts.

    Source:
        Maximum Likelihood Reinforcement Learning (arXiv 2602.02710); $\epsilon$ as in its code.

    Examples:
        >>> maxrl_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0]), eps=0)
        tensor([ 3., -1., -1., -1.])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    values = at_least_float32(rewards)
    centered, _, size = group_moments(values, groups)
    known = torch.where(values.isfinite(), values, 0)
    mean = group_reducer(groups, len(values))(known, "sum") / size.clamp(min=1)
    positive = mean > 0
    return rounded(torch.where(positive, centered / (torch.where(positive, mean, 1) + eps), 0), rewards.dtype)


@shaped
def gpg_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    scale: float = 1.0,
) -> Float[Tensor, " rollouts"]:
    r"""Group policy gradient: centred rewards, made up for by as much as rollouts without a gradient dilute the mean.

    $$A_i = \frac{\alpha}{F}(r_i - \bar r_{g_i}), \qquad
    \alpha = \frac{\#\{j\}}{\#\{j : \text{the rewards of } g_j \text{ differ}\}}$$

    A loss that averages over all rollouts then has the gradient of the average over the informative ones, however many
    groups are all correct or all wrong.

    Args:
        rewards: One reward per rollout; NaN or infinite for one without a score, which is in no baseline and gets 0.
        groups: Group ids or a `GroupLayout`.
        scale: $F$, above 0.

    Returns:
        Advantages of the rewards' dtype; exactly 0 in a constant group.

    Raises:
        ValueError: `scale` not above 0; `groups` for another number of rollouts.

    Source:
        GPG (arXiv 2504.02546, section 2): $F$ = 1. The rollouts $\alpha$ counts are those of `informative_groups`.

    Examples:
        >>> gpg_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        tensor([ 1., -1.,  0.,  0.])
    """
    require(scale > 0, "scale", "a number above 0", scale)
    centered = group_moments(at_least_float32(rewards), groups).centered
    informative = informative_groups(rewards, groups).sum().clamp(min=1).to(centered.dtype)
    return rounded(centered * (len(rewards) / informative / scale), rewards.dtype)


@shaped
def pass_at_k_advantages(
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    k: int,
) -> Float[Tensor, " rollouts"]:
    r"""Advantages for the chance that one of $k$ rollouts is correct, averaged over all choices of $k$ from a group.

    With $n$ rollouts in a group, $m$ of them wrong, and $q = \binom{m}{k} / \binom{n}{k}$ the chance that $k$ all fail:

    $$A^+ = \frac{q}{\sqrt{q(1 - q)}} = \sqrt{\frac{q}{1 - q}}, \qquad
    A^- = \frac{q - \binom{m - 1}{k - 1} / \binom{n - 1}{k - 1}}{\sqrt{q(1 - q)}} = -\frac{n - m}{m} A^+$$

    $k$ = 1 is GRPO with the population's standard deviation. The larger $k$ is, the less an easy prompt counts: with
    fewer than $k$ wrong rollouts, every choice of $k$ succeeds and nothing is left to learn.

    Args:
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        k: At least 1. Groups smaller than $k$ get advantage 0.

    Returns:
        Float32 advantages that add up to 0 in a group; exactly 0 where $q$ is 0 or 1.

    Raises:
        ValueError: `k` below 1; `groups` for another number of rollouts.

    Source:
        Pass@k Training (arXiv 2508.10751), its analytical derivation.

    Examples:
        >>> pass_at_k_advantages(torch.tensor([True, False, False, False]), torch.tensor([0, 0, 0, 0]), k=2)
        tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    """
    require(k >= 1, "k", "at least 1", k)
    over_group = group_reducer(groups, len(success))
    right = over_group(success.float(), "sum")
    wrong = over_group(success.logical_not().float(), "sum")
    drawn = torch.arange(k, device=success.device)
    left = (wrong.unsqueeze(1) - drawn).clamp(min=0)
    fail = (left / (right + wrong).unsqueeze(1).sub(drawn).clamp(min=1)).prod(1)
    varies = (fail > 0) & (right > 0)
    positive = torch.where(varies, fail / torch.where(varies, 1 - fail, 1), 0).sqrt()
    return torch.where(success, positive, -positive * right / wrong.clamp(min=1)) + 0.0


@shaped
def remax_advantages(
    rewards: Float[Tensor, " rollouts"],
    greedy_rewards: Float[Tensor, " rollouts"],
) -> Float[Tensor, " rollouts"]:
    r"""ReMax: the reward less that of the greedy answer to the same prompt.

    $$A_i = r_i - r(y^{\text{greedy}}_i)$$

    Args:
        rewards: One reward per rollout.
        greedy_rewards: For each rollout, the reward of its prompt's greedily decoded answer.

    Returns:
        Advantages of the rewards' dtype; 0 where either reward is NaN, that is, could not be given.

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

    $\sigma_s$ is the sample deviation of $s$ over the batch's rollouts. Its mean is 0 already, as every signal's is in
    every group, so it is not subtracted: groups in which nothing differs keep an advantage of exactly 0.

    Args:
        rewards: The signals of each rollout. NaN where a signal is not given: it is in no baseline and adds nothing.
        groups: Group ids or a `GroupLayout`.
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

    Without other rewards it never happens. With them it does, where a correct rollout falls below its group's mean; see
    `guarded_rewards` for what bounds it.

    Args:
        advantages: One advantage per rollout.
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
