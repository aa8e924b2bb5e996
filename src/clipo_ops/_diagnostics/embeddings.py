"""What to log of embeddings.

Nothing here has a gradient; where there is nothing to measure the answer is NaN.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, as_layout
from clipo_ops._kernels.gram import group_cosines, success_pairs
from clipo_ops._typing import require, shaped


class GroupSimilarity(NamedTuple):
    """Mean cosines within groups.

    Attributes:
        positive: Between two correct rollouts of a group.
        negative: Between a correct and a wrong one.
    """

    positive: Float[Tensor, ""]
    negative: Float[Tensor, ""]


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


def _mean_and_squares(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of what counts on the last axis, 0 where nothing does, and the sum of squares around it."""
    count = mask.sum(-1).clamp(min=1)
    mean = torch.where(mask, values, 0).sum(-1) / count
    return mean, torch.where(mask, values - mean.unsqueeze(-1), 0).square().sum(-1)
