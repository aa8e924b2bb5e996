"""What to log. Nothing here has a gradient."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, as_layout
from clipo_ops._similarity import group_cosines, success_pairs
from clipo_ops._typing import shaped


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
