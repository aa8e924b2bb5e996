"""What to log of rewards and embeddings.

Nothing here has a gradient; where there is nothing to measure the answer is NaN.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, as_layout
from clipo_ops._policy_diagnostics import mean_or_nan
from clipo_ops._similarity import group_cosines, success_pairs
from clipo_ops._typing import at_least_float32, require, shaped


class GroupSimilarity(NamedTuple):
    """Mean cosines within groups.

    Attributes:
        positive: Between two correct rollouts of a group.
        negative: Between a correct and a wrong one.
    """

    positive: Float[Tensor, ""]
    negative: Float[Tensor, ""]


class ProcessGap(NamedTuple):
    """How well a reward tells right reasoning from wrong, among correct answers.

    Attributes:
        mean_gap: The mean difference of rewards, right less wrong.
        auc: The share of pairs in which the right one has more, ties counted half; 0.5 is chance.
    """

    mean_gap: Float[Tensor, ""]
    auc: Float[Tensor, ""]


@shaped
def group_similarity(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> GroupSimilarity:
    r"""How close correct rollouts of a group are to each other, and to its wrong ones.

    $$\text{positive} = \operatorname{mean}_{i \ne j,\ i, j \text{ correct}} \cos(z_i, z_j), \qquad
    \text{negative} = \operatorname{mean}_{i \text{ correct},\ j \text{ wrong}} \cos(z_i, z_j)$$

    over the pairs within groups. The head learns something if the first exceeds the second; both near 1 mean that the
    embeddings have collapsed.

    Args:
        embeddings: One vector per rollout, normalised or not.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Two detached means in [-1, 1], of the embeddings' dtype; NaN where there is no such pair.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Logged by the official CLIPO code (arXiv 2603.10101), there over a rollouts x rollouts matrix.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> group_similarity(embeddings, torch.tensor([True, True, False]), torch.tensor([5, 5, 5]))
        GroupSimilarity(positive=tensor(1.), negative=tensor(0.))
    """
    layout = as_layout(groups, len(success))
    cosines = group_cosines(embeddings.detach(), layout)
    right, wrong, pairs = success_pairs(success, layout)

    def mean(other: Tensor) -> Tensor:
        chosen = pairs & right.unsqueeze(2) & other.unsqueeze(1)
        total = torch.where(chosen, cosines, 0).sum() / chosen.sum()
        return total.to(embeddings.dtype)

    return GroupSimilarity(mean(right), mean(wrong))


@shaped
def noise_share(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    r"""The share of the variance of `infonce` between correct rollouts of a group that is the draw of the positive.

    The loss of anchor $i$ varies by its draw around its expectation $\mu_i$, which is `supcon_out`:

    $$\frac{\sum_i \sigma_i^2}{\sum_i \sigma_i^2 + \sum_i (\mu_i - \bar\mu_{g_i})^2}, \qquad
    \sigma_i^2 = \frac{1}{|P_i|} \sum_{p \in P_i} (s_{ip} - \bar s_i)^2$$

    over all anchors, with $\bar\mu$ the mean over a group's anchors: sums are divided, not shares averaged, so that a
    group counts by its anchors and its variance. Exact: nothing is drawn.

    Args:
        embeddings: One vector per rollout, normalised or not.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        temperature: As in `contrastive_loss`, above 0.

    Returns:
        A detached share in [0, 1], of the embeddings' dtype; NaN without an anchor, or where no loss varies at all;
        0 where no group has more than 2 correct rollouts: there is only one positive to draw.

    Raises:
        ValueError: `temperature` not above 0; `groups` for another number of rollouts.

    Source:
        The law of total variance, for the reward of CLIPO (arXiv 2603.10101).

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> noise_share(embeddings, torch.tensor([True, True, True, False]), torch.tensor([0, 0, 0, 0]))
        tensor(0.8963)
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    layout = as_layout(groups, len(success))
    logits = group_cosines(embeddings.detach(), layout) / temperature
    right, wrong, pairs = success_pairs(success, layout)
    anchors = right & (right.sum(1, keepdim=True) >= 2) & wrong.any(1, keepdim=True)
    mean, draw = _mean_and_squares(logits, pairs & anchors.unsqueeze(2) & right.unsqueeze(1))
    normaliser = torch.where(pairs, logits, -torch.inf).logsumexp(2)
    _, between = _mean_and_squares(normaliser - mean, anchors)
    positives = (right.sum(1, keepdim=True) - 1).clamp(min=1)
    noise = (draw / positives).sum()
    return (noise / (noise + between.sum())).to(embeddings.dtype)


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
    return ProcessGap(mean_or_nan(gap, pairs).to(rewards.dtype), mean_or_nan(wins, pairs).to(rewards.dtype))


@shaped
def degenerate_fraction(rewards: Float[Tensor, " rollouts"], groups: Groups) -> Float[Tensor, ""]:
    r"""The share of groups whose rewards are all one, and which therefore teach nothing.

    $$\frac{1}{\#\text{groups}} \#\{g : \max_{i \in g} r_i = \min_{i \in g} r_i\}$$

    Args:
        rewards: One reward per rollout; NaN, for one that could not be scored, is left out.
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


def _mean_and_squares(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of what counts on the last axis, 0 where nothing does, and the sum of squares around it."""
    count = mask.sum(-1).clamp(min=1)
    mean = torch.where(mask, values, 0).sum(-1) / count
    return mean, torch.where(mask, values - mean.unsqueeze(-1), 0).square().sum(-1)
