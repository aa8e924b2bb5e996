"""What to log of embeddings. Nothing here has a gradient; where there is nothing to measure the result is NaN."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._contrastive.loss import contrastive_anchors
from clipo_ops._diagnostics.policy import mean_or_nan
from clipo_ops._groups import Groups, as_layout
from clipo_ops._kernels.gram import group_cosines, inverse_norms, success_pairs
from clipo_ops._numerics import at_least_float32
from clipo_ops._typing import require, shaped


class GroupSimilarity(NamedTuple):
    """Mean cosines within groups.

    Attributes:
        positive: Between two correct rollouts of a group.
        negative: Between a correct and an incorrect one.
        incorrect: Between two incorrect ones.
    """

    positive: Float[Tensor, ""]
    negative: Float[Tensor, ""]
    incorrect: Float[Tensor, ""]


@shaped
def group_similarity(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> GroupSimilarity:
    r"""Returns how close the rollouts of a group are to each other, by verdict.

    $$\text{positive} = \operatorname{mean}_{i \ne j,\ i, j \text{ correct}} \cos(z_i, z_j), \qquad
    \text{negative} = \operatorname{mean}_{i \text{ correct},\ j \text{ incorrect}} \cos(z_i, z_j), \qquad
    \text{incorrect} = \operatorname{mean}_{i \ne j,\ i, j \text{ incorrect}} \cos(z_i, z_j)$$

    over all pairs within groups. The head separates the verdicts if `positive` exceeds `negative`. All three near 1
    mean that the embeddings have collapsed. The same function on the pooled hidden states shows what the head adds.

    Args:
        embeddings: One vector per rollout, normalised or not.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Three detached means in [-1, 1], of the embeddings' dtype; NaN where there is no such pair.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Logged by the official CLIPO code (arXiv 2603.10101) for embeddings and pooled hidden states.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> group_similarity(embeddings, torch.tensor([True, True, False, False]), torch.tensor([5, 5, 5, 5]))
        GroupSimilarity(positive=tensor(1.), negative=tensor(0.3000), incorrect=tensor(0.8000))
    """
    layout = as_layout(groups, len(success))
    cosines = group_cosines(embeddings.detach(), layout)
    correct, incorrect, pairs = success_pairs(success, layout)

    def mean(first: Tensor, second: Tensor) -> Tensor:
        return mean_or_nan(cosines, pairs & first.unsqueeze(2) & second.unsqueeze(1)).to(embeddings.dtype)

    return GroupSimilarity(mean(correct, correct), mean(correct, incorrect), mean(incorrect, incorrect))


@shaped
def length_bucket_similarity(
    embeddings: Float[Tensor, "rollouts dim"],
    lengths: Int[Tensor, " rollouts"],
    *,
    buckets: int = 4,
) -> Float[Tensor, " buckets"]:
    r"""Returns the mean cosine between the rollouts of each length bucket, over the whole batch.

    $$c_b = \operatorname{mean}_{i \ne j,\ i, j \in B_b} \cos(z_i, z_j)
    = \frac{\lVert \sum_{i \in B_b} u_i \rVert^2 - \sum_{i \in B_b} \lVert u_i \rVert^2}{|B_b| (|B_b| - 1)},
    \qquad u_i = \frac{z_i}{\lVert z_i \rVert}$$

    with $B_1, B_2, \dots$ the quantiles of the rollouts, sorted by length, shortest first. If these cosines exceed that
    of the batch (`buckets=1`), embeddings carry the length of a response, and contrastive rewards compare lengths.

    Args:
        embeddings: One vector per rollout, normalised or not, or its pooled hidden states.
        lengths: The valid tokens of each response.
        buckets: The number of buckets, at least 1. Their sizes differ by at most 1.

    Returns:
        Detached means in [-1, 1], one per bucket, of the embeddings' dtype; NaN for a bucket of fewer than 2 rollouts.

    Raises:
        ValueError: `buckets` below 1.

    Source:
        Logged by the official CLIPO code (arXiv 2603.10101), in 4 buckets, over a matrix of all pairs.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.0, 2.0]])
        >>> length_bucket_similarity(embeddings, torch.tensor([5, 90, 7, 80]), buckets=2)
        tensor([0.8000, 1.0000])
    """
    require(buckets >= 1, "buckets", "at least 1", buckets)
    vectors = at_least_float32(embeddings.detach())
    directions = vectors * inverse_norms(vectors)
    place = torch.arange(lengths.shape[0], device=lengths.device)
    bucket = ((place + 1) * buckets - 1) // torch.ones_like(place).sum().clamp(min=1)
    by_length = directions.index_select(0, lengths.argsort(stable=True))
    total = by_length.new_zeros(buckets, by_length.shape[1]).index_add(0, bucket, by_length)
    own = by_length.new_zeros(buckets).index_add(0, bucket, by_length.square().sum(1))
    size = by_length.new_zeros(buckets).index_add(0, bucket, torch.ones_like(bucket).to(by_length.dtype))
    cosines = (total.square().sum(1) - own) / (size * (size - 1))
    return torch.where(size > 1, cosines, torch.nan).clamp(-1, 1).to(embeddings.dtype)


@shaped
def noise_share(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    r"""Returns the share of the variance of `infonce` within groups that comes from sampling the positive.

    The loss of anchor $i$ varies with its sampled positive around its expectation $\mu_i$, which is `supcon_out`:

    $$\frac{\sum_i \sigma_i^2}{\sum_i \sigma_i^2 + \sum_i (\mu_i - \bar\mu_{g_i})^2}, \qquad
    \sigma_i^2 = \frac{1}{|P_i|} \sum_{p \in P_i} (s_{ip} - \bar s_i)^2$$

    over all anchors, with $\bar\mu$ the mean over a group's anchors. The sums over all groups are divided, so a group
    counts by its anchors and its variance. The result is exact: nothing is sampled.

    Args:
        embeddings: One vector per rollout, normalised or not.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        temperature: As in `contrastive_loss`, above 0.

    Returns:
        A detached share in [0, 1], of the embeddings' dtype; NaN without an anchor, or if no loss varies at all; 0 if
        no group has more than 2 correct rollouts, since there is only one positive to sample.

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
    correct, _, pairs = success_pairs(success, layout)
    anchors = layout.gather(contrastive_anchors(success, layout)) & layout.valid
    mean, squares = _mean_and_squares(logits, pairs & anchors.unsqueeze(2) & correct.unsqueeze(1))
    normaliser = torch.where(pairs, logits, -torch.inf).logsumexp(2)
    _, between = _mean_and_squares(normaliser - mean, anchors)
    positives = (correct.sum(1, keepdim=True) - 1).clamp(min=1)
    noise = (squares / positives).sum()
    return (noise / (noise + between.sum())).to(embeddings.dtype)


def _mean_and_squares(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The masked mean over the last axis, 0 where nothing counts, and the sum of squares around it."""
    count = mask.sum(-1).clamp(min=1)
    mean = torch.where(mask, values, 0).sum(-1) / count
    return mean, torch.where(mask, values - mean.unsqueeze(-1), 0).square().sum(-1)
