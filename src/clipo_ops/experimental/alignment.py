"""A loss on the policy's own hidden states."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32
from clipo_ops._typing import shaped
from clipo_ops.experimental._verdicts import verdicts


@shaped
def hidden_align_loss(
    states: Float[Tensor, "rollouts hidden"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> Float[Tensor, " rollouts"]:
    r"""Hidden-Align: one minus the mean cosine of a correct rollout's state with the group's other correct ones.

    $$\ell_i = 1 - \frac{1}{|C_g| - 1} \sum_{j \in C_g \setminus i} \cos(h_i, h_j)$$

    with $C_g$ the correct rollouts of the group. The mean over $C_g$ is one minus the mean cosine of all pairs.

    This is an auxiliary loss and no reward: added with a weight to the policy loss, it trains the policy through the
    states, which therefore come from the forward pass that has a gradient.

    Args:
        states: $h$, the last layer's state at the token before the answer's marker, as from `token_pool`; zeros where a
            rollout has no such token: it then takes no part.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        One loss per rollout in [0, 2], in at least float32, with a gradient to both states of each pair; 0, without a
        gradient, for incorrect rollouts and where fewer than two are correct.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Hidden-Align (arXiv 2606.03234), as its abstract and reviews of it describe it: the pairwise cosine similarity
        of correct rollouts' last-layer states at the anchor token is maximized. Its equations and weight could not be
        read, nor how it weighs groups, hence one loss per rollout.

    Examples:
        >>> states = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> hidden_align_loss(states, torch.tensor([True, True, False]), torch.tensor([0, 0, 0]))
        tensor([0.4000, 0.4000, 0.0000])
    """
    layout = as_layout(groups, len(success))
    correct, _ = verdicts(success, (states != 0).any(1), layout)
    unit = normalize(torch.where(correct.unsqueeze(2), layout.gather(at_least_float32(states)), 0), dim=2)
    others = unit.sum(1, keepdim=True) - unit
    count = correct.sum(1, keepdim=True) - 1
    cosine = (unit * others).sum(2) / count.clamp(min=1)
    return layout.scatter(torch.where(correct & (count > 0), 1 - cosine, 0))
