"""Contrastive losses over the rollouts of a group, masked by success.

An objective is a function of one anchor's similarities to its candidates; `contrastive_loss` builds those rows from
embeddings and hands them to it. Ours are below; any function of the same form works in their place.
"""

import math
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import GroupLayout, Groups, as_layout
from clipo_ops._similarity import group_cosines, success_pairs
from clipo_ops._typing import at_least_float32, require, shaped

if TYPE_CHECKING:
    Scope = Literal["group"]
    Reduction = Literal["mean", "sum", "none"]
else:
    Scope = Reduction = str  # so that a wrong name gets a ValueError


@runtime_checkable
class Objective(Protocol):
    """A contrastive objective: one loss per anchor, from a row of logits against its candidates.

    It must reduce the last axis and treat every row on its own. `contrastive_loss` calls it with logits
    (similarity / temperature) in at least float32, the positives among the candidates, and the candidates. Rows that
    are no anchor are shown as all-zero logits with every column positive, and their result is thrown away; so there
    is at least one positive in every row.
    """

    def __call__(
        self,
        logits: Float[Tensor, "*anchors candidates"],
        positives: Bool[Tensor, "*anchors candidates"],
        candidates: Bool[Tensor, "*anchors candidates"],
        /,
    ) -> Float[Tensor, "*anchors"]: ...


@shaped
def infonce(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*anchors"]:
    r"""InfoNCE against one positive $p$, drawn uniformly for every anchor.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - s_{ip}, \qquad p \sim U(P_i)$$

    Its expectation over the draw is `supcon_out`; the draw is most of the variance between correct rollouts, so
    prefer `supcon_out` where the paper's exact recipe does not matter.

    Args:
        logits: $s$, similarities divided by the temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.
        generator: Where the draw comes from; the device's default generator when None. Give one with
            `functools.partial(infonce, generator=g)`, and save its state with your checkpoint.

    Returns:
        One loss per anchor, at least 0.

    Source:
        Contrastive predictive coding (arXiv 1807.03748, eq. 4); CLIPO's default (arXiv 2603.10101).

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> infonce(logits, torch.tensor([[True, False]]), torch.tensor([[True, True]]))
        tensor([0.1269])
    """
    place = positives.cumsum(-1, dtype=torch.int32)
    count = place.narrow(-1, place.shape[-1] - 1, 1)
    draw = torch.rand_like(count, dtype=torch.float32, generator=generator)
    drawn = positives & (place == (draw * count).int() + 1)  # draw * count < count, also when rounded
    chosen = torch.where(drawn, at_least_float32(logits), 0).sum(-1)
    return (_logsumexp(logits, candidates) - chosen).to(logits.dtype)


@shaped
def supcon_out(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Supervised contrastive loss, mean over positives outside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \frac{1}{|P_i|} \sum_{p \in P_i} s_{ip}$$

    The exact expectation of `infonce` over its draw, without the draw's noise. At least $\log |P_i|$: the other
    positives stay in the denominator.

    Args:
        logits: $s$, similarities divided by the temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least $\log |P_i|$.

    Source:
        Supervised contrastive learning (arXiv 2004.11362, eq. 2).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> supcon_out(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.9076])
    """
    mean = torch.where(positives, at_least_float32(logits), 0).sum(-1) / positives.sum(-1)
    return (_logsumexp(logits, candidates) - mean).to(logits.dtype)


@shaped
def supcon_in(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Supervised contrastive loss, mean over positives inside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \frac{1}{|P_i|} \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, similarities divided by the temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least $\log |P_i|$ and at most that of `supcon_out`.

    Source:
        Supervised contrastive learning (arXiv 2004.11362, eq. 3).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> supcon_in(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.7875])
    """
    loss = _logsumexp(logits, candidates) - _logsumexp(logits, positives)
    return (loss + positives.sum(-1).to(loss.dtype).log()).to(logits.dtype)


@shaped
def soft_nearest_neighbor(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Soft nearest neighbour loss: how likely a neighbour drawn by similarity is a positive.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, similarities divided by the temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least 0: its floor does not grow with the number of positives.

    Source:
        Soft nearest neighbor loss (arXiv 1902.01889, eq. 1).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> soft_nearest_neighbor(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.0943])
    """
    return (_logsumexp(logits, candidates) - _logsumexp(logits, positives)).to(logits.dtype)


@shaped
def contrastive_loss(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    objective: Objective = infonce,
    scope: Scope = "group",
    temperature: float = 0.05,
    reduction: Reduction = "mean",
) -> Float[Tensor, " rollouts"] | Float[Tensor, ""]:
    r"""Pulls the correct rollouts of a group together, away from its wrong ones.

    Every correct rollout $i$ of a group that has another correct and a wrong one is an anchor. Its logits against the
    other rollouts of its group, correct ($P_i$) and wrong, are cosines over a temperature,

    $$s_{ia} = \frac{z_i \cdot z_a}{\tau\, \lVert z_i \rVert\, \lVert z_a \rVert}$$

    and its loss is the objective's, by default `infonce`. All other rollouts have loss exactly 0 and get no gradient
    as anchors. Time and memory are rollouts x group size; the anchor's own similarity takes part in nothing.

    Args:
        embeddings: One vector $z_i$ per rollout, normalised or not. One of norm below 1e-6 has no direction: its
            cosines are 0 and it gets no gradient.
        success: True for correct rollouts. Take the verifier's word; a reward above 0 may be format credit.
        groups: Group ids, or a `GroupLayout` (needed inside `torch.compile`).
        objective: Loss of one anchor given its row: one of ours or any `Objective`.
        scope: Where positives and other candidates come from: `"group"`, the anchor's group.
        temperature: $\tau$, above 0.
        reduction: `"none"` gives the loss of every rollout, 0 where it is no anchor: what `contrastive_reward` takes.
            `"sum"` adds them up, `"mean"` averages over ANCHORS; without one both are 0 with zero gradients.

    Returns:
        One loss per rollout, or a scalar; of the embeddings' dtype, computed in at least float32, also under autocast.

    Raises:
        ValueError: `temperature` not above 0; unknown `scope` or `reduction`; `groups` for another number of rollouts.

    Source:
        CLIPO (arXiv 2603.10101) and its official code, without the latter's epsilon inside the logarithm and the
        anchor's own similarity as the subtracted maximum.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> success = torch.tensor([True, True, False, False])
        >>> groups = torch.tensor([0, 0, 0, 0])
        >>> contrastive_loss(embeddings, success, groups, temperature=0.5, reduction="none")
        tensor([0.6271, 1.1143, 0.0000, 0.0000])
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    require(scope == "group", "scope", "'group'", scope)
    require(reduction in ("mean", "sum", "none"), "reduction", "'mean', 'sum' or 'none'", reduction)
    layout = as_layout(groups, len(success))
    anchors, positives, candidates = _roles(success, layout)
    idle = anchors.logical_not().unsqueeze(2)
    logits = torch.where(idle, 0, group_cosines(embeddings, layout) / temperature)
    losses = objective(logits, positives | idle, candidates | idle)
    losses = torch.where(anchors, losses, 0)
    if reduction == "none":
        return layout.scatter(losses).to(embeddings.dtype)
    count = anchors.sum().clamp(min=1) if reduction == "mean" else 1
    return (losses.sum() / count).to(embeddings.dtype)


@shaped
def contrastive_anchors(success: Bool[Tensor, " rollouts"], groups: Groups) -> Bool[Tensor, " rollouts"]:
    r"""The rollouts that `contrastive_loss` takes as anchors.

    $$i \text{ correct}, \quad \#\text{correct}(g_i) \ge 2, \quad \#\text{wrong}(g_i) \ge 1$$

    Args:
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        True for anchors. Their number is what `reduction="mean"` divides by.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        CLIPO (arXiv 2603.10101).

    Examples:
        >>> contrastive_anchors(torch.tensor([True, True, False, True, True]), torch.tensor([0, 0, 0, 1, 1]))
        tensor([ True,  True, False, False, False])
    """
    layout = as_layout(groups, len(success))
    anchors, _, _ = _roles(success, layout)
    return layout.scatter(anchors)


def _roles(success: Tensor, layout: GroupLayout) -> tuple[Tensor, Tensor, Tensor]:
    right, wrong, pairs = success_pairs(success, layout)
    anchors = right & (right.sum(1, keepdim=True) >= 2) & wrong.any(1, keepdim=True)
    return anchors, pairs & right.unsqueeze(2) & right.unsqueeze(1), pairs


def _logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, at_least_float32(logits), -math.inf).logsumexp(-1)
