"""Losses and verdicts -> rewards."""

from jaxtyping import Float
from torch import Tensor

from clipo_ops._typing import require, shaped


@shaped
def contrastive_reward(
    loss: Float[Tensor, " rollouts"],
    *,
    weight: float = 0.2,
    floor: float = -0.5,
) -> Float[Tensor, " rollouts"]:
    r"""The contrastive loss as a reward: its negative, weighted, then clipped from below.

    $$r_i = \max(-\lambda L_i,\; r_{\min})$$

    Add it to the outcome reward before group advantages are taken. The clip comes after the weight. Rollouts that are
    no anchor have loss 0 and so reward 0; a wrong rollout never gets any.

    Args:
        loss: `contrastive_loss(..., reduction="none")`, at least 0.
        weight: $\lambda$, at least 0.
        floor: $r_{\min}$, at most 0. With the outcome reward in {0, 1}, a floor above -1 keeps every correct rollout
            above every wrong one.

    Returns:
        Rewards in [floor, 0]. DETACHED: the loss trains the head, never the policy.

    Raises:
        ValueError: `weight` below 0 or `floor` above 0.

    Source:
        CLIPO (arXiv 2603.10101): $\lambda$ = 0.2, floor -0.5.

    Examples:
        >>> contrastive_reward(torch.tensor([0.0, 1.0, 4.0]))
        tensor([ 0.0000, -0.2000, -0.5000])
    """
    require(weight >= 0, "weight", "a number of at least 0", weight)
    require(floor <= 0, "floor", "a number of at most 0", floor)
    return (loss.detach() * -weight).clamp(min=floor) + 0.0  # + 0.0 turns -0.0 into 0.0
