"""The contrastive reward, and its sum with the outcome."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._contrastive.loss import Offset, Scope, Similarity, contrastive_loss
from clipo_ops._contrastive.objectives import Objective, infonce
from clipo_ops._groups import Groups
from clipo_ops._typing import require, shaped


@shaped
def contrastive_reward(
    loss: Float[Tensor, " rollouts"],
    *,
    weight: float = 0.2,
    floor: float = -0.5,
) -> Float[Tensor, " rollouts"]:
    r"""Returns the negative contrastive loss, weighted, then clipped from below.

    $$r_i = \max(-\lambda L_i,\; r_{\min})$$

    Add it to the outcome reward before computing group advantages. Rollouts that are no anchors have loss 0 and so
    reward 0; with `anchors="success"` that includes every incorrect rollout.

    Args:
        loss: `contrastive_loss(..., reduction="none")`.
        weight: $\lambda$, at least 0.
        floor: $r_{\min}$, at most 0. With outcomes in {0, 1}, a floor above -1 keeps every correct rollout above
            every incorrect one.

    Returns:
        Detached rewards, at least `floor`, and at most 0 for losses of at least 0. The loss trains the head, never the
        policy.

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


@shaped
def clipo_rewards(
    outcome: Float[Tensor, " rollouts"],
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    objective: Objective = infonce,
    scope: Scope = "group",
    similarity: Similarity = "cosine",
    temperature: float = 0.05,
    offset: Offset = "none",
    weight: float = 0.2,
    floor: float = -0.5,
) -> Float[Tensor, " rollouts"]:
    r"""Returns CLIPO's rewards: the outcome plus the contrastive reward.

    $$r'_i = r_i + \max(-\lambda L_i,\; r_{\min})$$

    with $L$ from `contrastive_loss`. CLIPO on top of a method is that method with group advantages of these rewards.

    Args:
        outcome: $r$, the verifier's rewards.
        embeddings: One vector per rollout, of any norm, as from the contrastive head.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        objective: As in `contrastive_loss`. `supcon_out` gives the expected reward in place of a sampled one.
        scope: As in `contrastive_loss`.
        similarity: As in `contrastive_loss`.
        temperature: As in `contrastive_loss`.
        offset: As in `contrastive_loss`: `"log_positives"` makes the best possible reward 0.
        weight: $\lambda$, at least 0.
        floor: $r_{\min}$, at most 0.

    Returns:
        Rewards of the outcome's dtype, detached from the embeddings: train their head by `contrastive_loss`.

    Raises:
        ValueError: As `contrastive_loss` and `contrastive_reward`.

    Source:
        CLIPO (arXiv 2603.10101).

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> outcome = torch.tensor([1.0, 1.0, 0.0])
        >>> clipo_rewards(outcome, embeddings, outcome == 1, torch.tensor([0, 0, 0]), temperature=1)
        tensor([0.9373, 0.9373, 0.0000])
    """
    loss = contrastive_loss(
        embeddings.detach(),
        success,
        groups,
        objective=objective,
        scope=scope,
        similarity=similarity,
        temperature=temperature,
        offset=offset,
        reduction="none",
    )
    return outcome + contrastive_reward(loss, weight=weight, floor=floor).to(outcome.dtype)
