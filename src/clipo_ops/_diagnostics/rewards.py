"""What to log of rewards.

Nothing here has a gradient; where there is nothing to measure the answer is NaN.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._diagnostics.policy import mean_or_nan
from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped


class ProcessGap(NamedTuple):
    """How well a reward tells right reasoning from wrong, among correct answers.

    Attributes:
        mean_gap: The mean difference of rewards, right less wrong.
        auc: The share of pairs in which the right one has more, ties counted half; 0.5 is chance.
    """

    mean_gap: Float[Tensor, ""]
    auc: Float[Tensor, ""]


@shaped
def process_gap(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    process: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> ProcessGap:
    r"""Whether correct rollouts whose reasoning is right get more reward than those whose reasoning is wrong.

    $$\text{gap} = \frac{1}{|Q|} \sum_{(i, j) \in Q} (r_i - r_j), \qquad
    \text{AUC} = \frac{1}{|Q|} \sum_{(i, j) \in Q} \left(1[r_i > r_j] + \tfrac12\, 1[r_i = r_j]\right)$$

    where $Q$ holds the pairs of correct rollouts of one group, $i$ of right and $j$ of wrong reasoning. Every pair
    counts the same, so a group with $a$ right and $b$ wrong ones counts $ab$ times.

    Args:
        rewards: $r$, such as those of `contrastive_reward`; NaN for a rollout to leave out.
        success: True for correct rollouts; the others take no part.
        process: True where the reasoning is right too, by whatever judge there is.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Two detached numbers of the rewards' dtype; NaN where no group has such a pair.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Mann and Whitney's statistic (1947) within groups; chain and answer judged together, as in CoT-Pass@K
        (arXiv 2506.14245).

    Examples:
        >>> rewards, process = torch.tensor([-0.1, -0.4, -0.1, 0.0]), torch.tensor([True, False, False, False])
        >>> process_gap(rewards, torch.tensor([True, True, True, False]), process, torch.tensor([0, 0, 0, 0]))
        ProcessGap(mean_gap=tensor(0.1500), auc=tensor(0.7500))
    """
    layout = as_layout(groups, len(success))
    laid_out = layout.gather(at_least_float32(rewards.detach()))
    counts = layout.gather(success) & layout.valid & laid_out.isfinite()
    right = layout.gather(process)
    pairs = (counts & right).unsqueeze(2) & (counts & right.logical_not()).unsqueeze(1)
    gap = laid_out.unsqueeze(2) - laid_out.unsqueeze(1)
    wins = (gap.sign() + 1) / 2
    return ProcessGap(rounded(mean_or_nan(gap, pairs), rewards.dtype), mean_or_nan(wins, pairs).to(rewards.dtype))


@shaped
def degenerate_fraction(rewards: Float[Tensor, " rollouts"], groups: Groups) -> Float[Tensor, ""]:
    r"""The share of groups whose rewards are all one, and which therefore teach nothing.

    $$\frac{1}{\#\text{groups}} \#\{g : \max_{i \in g} r_i = \min_{i \in g} r_i\}$$

    Args:
        rewards: One reward per rollout; NaN or infinite, for one that could not be scored, is left out.
        groups: Group ids or a `GroupLayout`.

    Returns:
        A detached share in [0, 1], of the rewards' dtype. Singletons count, and groups of which nothing is known.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        What dynamic sampling leaves out: DAPO (arXiv 2503.14476, section 3.2).

    Examples:
        >>> degenerate_fraction(torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        tensor(0.5000)
    """
    layout = as_layout(groups, len(rewards))
    laid_out = layout.gather(at_least_float32(rewards.detach()))
    known = layout.valid & laid_out.isfinite()
    largest = torch.where(known, laid_out, -torch.inf).amax(1)
    constant = torch.where(known, laid_out, torch.inf).amin(1) >= largest
    return constant.to(laid_out.dtype).mean().to(rewards.dtype)


@shaped
def clamp_fraction(
    rewards: Float[Tensor, " rollouts"],
    anchors: Bool[Tensor, " rollouts"],
    *,
    floor: float = -0.5,
) -> Float[Tensor, ""]:
    r"""The share of anchors whose contrastive reward is clipped: they are told nothing but that they are bad.

    $$\frac{\#\{i \text{ anchor} : r_i \le r_{\min}\}}{\#\{i \text{ anchor}\}}$$

    Args:
        rewards: Those of `contrastive_reward`.
        anchors: Those of `contrastive_anchors`.
        floor: $r_{\min}$, at most 0: the one that the rewards were made with.

    Returns:
        A detached share in [0, 1], of the rewards' dtype; NaN without an anchor.

    Raises:
        ValueError: `floor` above 0.

    Source:
        CLIPO (arXiv 2603.10101): with `infonce` or `supcon_out` the reward of perfect clusters is itself at the floor
        from 14 correct rollouts on.

    Examples:
        >>> clamp_fraction(torch.tensor([-0.5, -0.2, 0.0]), torch.tensor([True, True, False]))
        tensor(0.5000)
    """
    require(floor <= 0, "floor", "a number of at most 0", floor)
    clamped = rewards.detach() <= torch.full_like(rewards, floor)
    return mean_or_nan(at_least_float32(clamped.to(rewards.dtype)), anchors).to(rewards.dtype)
