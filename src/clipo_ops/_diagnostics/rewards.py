"""What to log of rewards. Nothing here has a gradient; where there is nothing to measure the result is NaN."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._diagnostics.policy import mean_or_nan
from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._rewards.combination import informative_groups
from clipo_ops._typing import require, shaped


class ProcessGap(NamedTuple):
    """How well a reward separates correct answers with sound reasoning from correct answers with flawed reasoning.

    Attributes:
        mean_gap: The mean difference in reward, sound minus flawed.
        auc: The share of pairs in which the sound one has the higher reward, ties counted half; 0.5 is chance.
    """

    mean_gap: Float[Tensor, ""]
    auc: Float[Tensor, ""]


class RewardByVerdict(NamedTuple):
    """Mean rewards by verdict.

    Attributes:
        correct: The mean reward of correct rollouts.
        incorrect: The mean reward of incorrect rollouts.
    """

    correct: Float[Tensor, ""]
    incorrect: Float[Tensor, ""]


@shaped
def process_gap(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    process: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> ProcessGap:
    r"""Returns whether correct answers with sound reasoning get more reward than correct answers with flawed reasoning.

    $$\text{gap} = \frac{1}{|Q|} \sum_{(i, j) \in Q} (r_i - r_j), \qquad
    \text{AUC} = \frac{1}{|Q|} \sum_{(i, j) \in Q} \left(1[r_i > r_j] + \tfrac12\, 1[r_i = r_j]\right)$$

    where $Q$ holds the pairs of correct rollouts of one group, $i$ with sound and $j$ with flawed reasoning. All pairs
    weigh the same, so a group with $a$ sound and $b$ flawed rollouts counts $ab$ times.

    Args:
        rewards: $r$, such as contrastive rewards; NaN or infinite to leave a rollout out.
        success: True for correct rollouts; incorrect ones are left out.
        process: True where the reasoning is sound, by whatever judge there is.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Two detached numbers of the rewards' dtype; NaN where no group has such a pair.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        The Mann-Whitney statistic (1947) within groups; reasoning and answer judged together, as in CoT-Pass@K
        (arXiv 2506.14245).

    Examples:
        >>> rewards, process = torch.tensor([-0.1, -0.4, -0.1, 0.0]), torch.tensor([True, False, False, False])
        >>> process_gap(rewards, torch.tensor([True, True, True, False]), process, torch.tensor([0, 0, 0, 0]))
        ProcessGap(mean_gap=tensor(0.1500), auc=tensor(0.7500))
    """
    layout = as_layout(groups, len(success))
    laid_out = layout.gather(at_least_float32(rewards.detach()))
    counts = layout.gather(success) & layout.valid & laid_out.isfinite()
    sound = layout.gather(process)
    pairs = (counts & sound).unsqueeze(2) & (counts & sound.logical_not()).unsqueeze(1)
    gap = laid_out.unsqueeze(2) - laid_out.unsqueeze(1)
    wins = (gap.sign() + 1) / 2
    return ProcessGap(rounded(mean_or_nan(gap, pairs), rewards.dtype), mean_or_nan(wins, pairs).to(rewards.dtype))


@shaped
def reward_by_verdict(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
) -> RewardByVerdict:
    r"""Returns the mean reward of correct and of incorrect rollouts.

    $$\frac{\sum_i s_i r_i}{\sum_i s_i}, \qquad \frac{\sum_i (1 - s_i) r_i}{\sum_i (1 - s_i)}$$

    Args:
        rewards: $r$, such as contrastive rewards or the sum of all signals; NaN or infinite to leave a rollout out.
        success: $s$, True for correct rollouts.

    Returns:
        Two detached means of the rewards' dtype; NaN where there is no such rollout.

    Source:
        Logged by the official CLIPO code (arXiv 2603.10101) for the contrastive reward.

    Examples:
        >>> reward_by_verdict(torch.tensor([-0.1, -0.3, 0.0]), torch.tensor([True, True, False]))
        RewardByVerdict(correct=tensor(-0.2000), incorrect=tensor(0.))
    """
    values = at_least_float32(rewards.detach())
    known = values.isfinite()
    correct, incorrect = (mean_or_nan(values, known & mask) for mask in (success, success.logical_not()))
    return RewardByVerdict(rounded(correct, rewards.dtype), rounded(incorrect, rewards.dtype))


@shaped
def degenerate_fraction(rewards: Float[Tensor, " rollouts"], groups: Groups) -> Float[Tensor, ""]:
    r"""Returns the share of groups whose rewards are all equal, and which therefore give no group-relative advantage.

    $$\frac{1}{\#\text{groups}} \#\{g : \max_{i \in g} r_i = \min_{i \in g} r_i\}$$

    These are the groups of which `informative_groups` keeps no rollout.

    Args:
        rewards: One reward per rollout; NaN or infinite if it could not be scored.
        groups: Group ids or a `GroupLayout`.

    Returns:
        A detached share in [0, 1], of the rewards' dtype; NaN without a group. Singletons count as degenerate, and so
        do groups without a known reward.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        What dynamic sampling leaves out: DAPO (arXiv 2503.14476, section 3.2).

    Examples:
        >>> degenerate_fraction(torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        tensor(0.5000)
    """
    layout = as_layout(groups, len(rewards))
    degenerate = layout.gather(informative_groups(rewards.detach(), layout)).any(1).logical_not()
    return at_least_float32(degenerate.to(rewards.dtype)).mean().to(rewards.dtype)


@shaped
def clamp_fraction(
    rewards: Float[Tensor, " rollouts"],
    anchor_mask: Bool[Tensor, " rollouts"],
    *,
    floor: float = -0.5,
) -> Float[Tensor, ""]:
    r"""Returns the share of anchors whose contrastive reward is at the floor, where it no longer ranks them.

    $$\frac{\#\{i \text{ anchor} : r_i \le r_{\min}\}}{\#\{i \text{ anchor}\}}$$

    Args:
        rewards: Contrastive rewards, as from `contrastive_reward`.
        anchor_mask: True for anchors, as from `contrastive_anchors`.
        floor: $r_{\min}$, at most 0: the floor that the rewards were computed with.

    Returns:
        A detached share in [0, 1], of the rewards' dtype; NaN without an anchor.

    Raises:
        ValueError: `floor` above 0.

    Source:
        CLIPO (arXiv 2603.10101). With its weight 0.2 and floor -0.5, `infonce` and `supcon_out` put even perfect
        clusters at the floor from 14 correct rollouts on.

    Examples:
        >>> clamp_fraction(torch.tensor([-0.5, -0.2, 0.0]), torch.tensor([True, True, False]))
        tensor(0.5000)
    """
    require(floor <= 0, "floor", "a number of at most 0", floor)
    clamped = rewards.detach() <= torch.full_like(rewards, floor)
    return mean_or_nan(at_least_float32(clamped.to(rewards.dtype)), anchor_mask).to(rewards.dtype)
