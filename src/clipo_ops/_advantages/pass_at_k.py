"""Advantages for the best of several rollouts instead of the average one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, group_reducer
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped


@shaped
def pass_at_k_advantages(
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    k: int,
) -> Float[Tensor, " rollouts"]:
    r"""Advantages for the chance that one of $k$ rollouts is correct, averaged over all choices of $k$ from a group.

    A group has $n$ rollouts, $m$ of them incorrect; $q = \binom{m}{k} / \binom{n}{k}$ is the chance that $k$ all fail.

    $$A^+ = \frac{q}{\sqrt{q(1 - q)}} = \sqrt{\frac{q}{1 - q}}, \qquad
    A^- = \frac{q - \binom{m - 1}{k - 1} / \binom{n - 1}{k - 1}}{\sqrt{q(1 - q)}} = -\frac{n - m}{m} A^+$$

    $k$ = 1 is GRPO with the population's standard deviation. The larger $k$ is, the less an easy prompt counts: with
    fewer than $k$ incorrect rollouts, every choice of $k$ succeeds and nothing is left to learn.

    Args:
        success: True for correct rollouts.
        groups: Group ids or a layout.
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
    correct = over_group(success.float(), "sum")
    incorrect = over_group(success.logical_not().float(), "sum")
    all_fail = _ratio_of_binomials(incorrect, correct + incorrect, k)
    varies = (all_fail > 0) & (correct > 0)
    positive = torch.where(varies, all_fail / torch.where(varies, 1 - all_fail, 1), 0).sqrt()
    negative = -correct / incorrect.clamp(min=1) * positive
    return torch.where(success, positive, negative) + 0.0  # no -0


def _ratio_of_binomials(part: Tensor, whole: Tensor, k: int) -> Tensor:
    """The chance that k draws without replacement all fall into a part of the whole; 0 for a part smaller than k."""
    drawn = torch.arange(k, device=part.device)
    left = (part.unsqueeze(1) - drawn).clamp(min=0)
    return (left / (whole.unsqueeze(1) - drawn).clamp(min=1)).prod(1)


@shaped
def best_minus_second_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Leave-one-out advantages for the group's best reward: the best rollout gets its lead over the second best.

    $$A_i = \max_{j \in g_i} r_j - \max_{j \in g_i,\, j \ne i} r_j$$

    It is 0 for every rollout but the only best one. Summed over the rollouts of a group of $n$, the policy gradient is
    an unbiased estimate of the gradient of $\mathbb{E} \max(r_1, \dots, r_n)$, with rewards in {0, 1} the pass@$n$:
    average the loss over groups, not over rollouts.

    Args:
        rewards: One reward per rollout; NaN = not known.
        groups: Group ids or a layout.

    Returns:
        Advantages of the rewards' dtype, at least 0; exactly 0 where the best reward is shared, and in a group of one.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Optimizing Language Models for Inference Time Objectives using RL (arXiv 2503.19595), its leave-one-out
        estimator; formula as in verl's `grpo_passk` without its division by the deviation.

    Examples:
        >>> rewards = torch.tensor([0.2, 1.0, 0.7, 1.0, 1.0])
        >>> best_minus_second_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
        tensor([0.0000, 0.3000, 0.0000, 0.0000, 0.0000])
    """
    values = at_least_float32(rewards)
    known = values.isfinite()
    over_group = group_reducer(groups, len(values))
    best = over_group(torch.where(known, values, -torch.inf), "amax")
    is_best = known & (values == best)
    second = over_group(torch.where(known & is_best.logical_not(), values, -torch.inf), "amax")
    leads = is_best & (over_group(is_best.to(values.dtype), "sum") == 1) & second.isfinite()
    return rounded(torch.where(leads, values - second, 0), rewards.dtype)
