"""CLIPO's rewards, from the verifier's and the embeddings."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._contrastive import Floor, Scope, Similarity, contrastive_loss
from clipo_ops._groups import Groups
from clipo_ops._objectives import Objective, infonce
from clipo_ops._rewards import contrastive_reward
from clipo_ops._typing import shaped


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
    loss_floor: Floor = "none",
    weight: float = 0.2,
    floor: float = -0.5,
) -> Float[Tensor, " rollouts"]:
    r"""CLIPO's rewards: the outcome, and how like the other correct rollouts a correct one is.

    $$r'_i = r_i + \max(-\lambda L_i,\; r_{\min})$$

    with $L$ from `contrastive_loss` and the rest from `contrastive_reward`. Group advantages of these, in any of the
    losses here, are CLIPO on top of that method.

    Args:
        outcome: $r$, the verifier's rewards.
        embeddings: One vector per rollout, of any length, as from the contrastive head.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        objective: As in `contrastive_loss`. `supcon_out` gives the expected reward in place of a drawn one.
        scope: As in `contrastive_loss`.
        similarity: As in `contrastive_loss`.
        temperature: As in `contrastive_loss`.
        loss_floor: `floor` of `contrastive_loss`: `"log_positives"` makes the best possible reward 0.
        weight: $\lambda$, at least 0.
        floor: $r_{\min}$, at most 0.

    Returns:
        Rewards of the outcome's dtype. DETACHED from the embeddings: train their head by `contrastive_loss`.

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
        floor=loss_floor,
        reduction="none",
    )
    return outcome + contrastive_reward(loss, weight=weight, floor=floor).to(outcome.dtype)
