"""Contrastive losses over rollouts, masked by success.

An objective is a function of one anchor's row of logits; `contrastive_loss` builds those rows from embeddings, in one
batch of group-sized matrices or in tiles of the whole batch, and hands them to it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._contrastive.objectives import Objective, infonce
from clipo_ops._groups import GroupLayout, Groups, as_layout, group_numbers, group_reducer
from clipo_ops._kernels.gram import group_cosines, negative_distances, success_pairs
from clipo_ops._kernels.tiles import readable_rows, tiled_losses
from clipo_ops._numerics import rounded
from clipo_ops._typing import require, require_rollouts, shaped

Scope = Literal["group", "cross", "batch"]
Anchors = Literal["success", "all"]
Similarity = Literal["cosine", "l2"]
Floor = Literal["none", "log_positives"]
Reduction = Literal["mean", "sum", "none"]


# Cosines, positives, candidates, and which rows are anchors if not all are -> losses.
_Losses = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@shaped
def contrastive_loss(
    embeddings: Float[Tensor, "rollouts dim"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    objective: Objective = infonce,
    scope: Scope = "group",
    anchors: Anchors = "success",
    similarity: Similarity = "cosine",
    temperature: float = 0.05,
    floor: Floor = "none",
    reduction: Reduction = "mean",
) -> Float[Tensor, " rollouts"] | Float[Tensor, ""]:
    r"""Pulls the correct rollouts of a group together, away from its wrong ones.

    Every correct rollout $i$ of a group that has another correct and a wrong one is an anchor. Its logits against the
    other rollouts of its group, correct ($P_i$) and wrong, are cosines less 1 over a temperature: minus a distance,

    $$s_{ia} = \frac{1}{\tau} \Big(\frac{z_i \cdot z_a}{\lVert z_i \rVert\, \lVert z_a \rVert} - 1\Big)$$

    and its loss is the objective's, by default `infonce`. All other rollouts have loss exactly 0 and get no gradient
    as anchors. The anchor's own similarity takes part in nothing.

    Group scope takes time and memory of rollouts x group size. The other two take rollouts x rollouts in time, but in
    memory only rollouts x 128: they go through the batch in tiles, in backward too. Eager on a CPU, only anchors' rows
    are computed.

    Args:
        embeddings: One vector $z_i$ per rollout, normalised or not. One of norm below 1e-6 has no direction: its
            cosines are 0 and it gets no gradient.
        success: True for correct rollouts. Take the verifier's word; a reward above 0 may be format credit.
        groups: Group ids, or a `GroupLayout` (needed inside `torch.compile` for group scope).
        objective: Loss of one anchor given its row: one of ours or any `Objective`.
        scope: Where positives and other candidates come from. `"group"`: both from the anchor's group. `"cross"`:
            positives from the group, candidates are all other rollouts of the batch, those of other prompts that are
            correct included. `"batch"`: both from the whole batch, by success alone. An anchor has a positive, and a
            candidate that is none.
        anchors: `"success"`, or `"all"` to make every rollout an anchor whose positives are of its own verdict, so
            that wrong rollouts are pulled together as well; they get a loss then, which is not to be made a reward.
        similarity: `"cosine"`; or `"l2"`, 1 less the distance of the normalised vectors, so that
            $s_{ia} = -\sqrt{\max(2 - 2 \cos, 10^{-8})} / \tau$.
        temperature: $\tau$, above 0.
        floor: `"log_positives"` takes $\log |P_i|$ off each loss, the least that `supcon_in` and `supcon_out` can
            reach, and `infonce` in expectation (a single draw may then fall below 0). It would push
            `soft_nearest_neighbor`, `decoupled` and `centroid` below 0: their floor is 0 already.
        reduction: `"none"` gives the loss of every rollout, 0 where it is no anchor: what `contrastive_reward` takes.
            `"sum"` adds them up, `"mean"` averages over ANCHORS; without one both are 0 with zero gradients.

    Returns:
        One loss per rollout, or a scalar; of the embeddings' dtype, computed in at least float32, also under autocast.

    Raises:
        ValueError: `temperature` not above 0; unknown `scope`, `anchors`, `similarity`, `floor` or `reduction`;
            `groups` for another number of rollouts.

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

    def losses_of(cosines: Tensor, positives: Tensor, candidates: Tensor, anchor: Tensor | None) -> Tensor:
        logits = negative_distances(cosines, similarity) / temperature
        if anchor is not None:
            idle = anchor.logical_not().unsqueeze(-1)
            logits, positives, candidates = torch.where(idle, 0, logits), positives | idle, candidates | idle
        losses = objective(logits, positives, candidates)
        if floor == "log_positives":
            losses = losses - positives.sum(-1).clamp(min=1).to(losses.dtype).log()
        return losses if anchor is None else torch.where(anchor, losses, 0)

    if scope == "group":
        layout = as_layout(groups, len(success))
        losses, is_anchor = _within_groups(losses_of, embeddings, success, layout, anchors)
        losses = layout.scatter(losses) if reduction == "none" else losses.sum()
    else:
        is_anchor = contrastive_anchors(success, groups, scope=scope, anchors=anchors)
        number = group_numbers(groups) if scope == "cross" else None
        order = readable_rows(is_anchor)
        some = None if order is not None else is_anchor
        row_losses = partial(_rows_of_batch, losses_of, success=success, is_anchor=some, number=number)
        losses = tiled_losses(embeddings, row_losses, order, objective, total=reduction != "none")
    if reduction == "mean":
        losses = losses / is_anchor.sum().clamp(min=1)
    return rounded(losses, embeddings.dtype)


@shaped
def contrastive_anchors(
    success: Bool[Tensor, " rollouts"], groups: Groups, *, scope: Scope = "group", anchors: Anchors = "success"
) -> Bool[Tensor, " rollouts"]:
    r"""The rollouts that `contrastive_loss` takes as anchors.

    $$i \text{ correct}, \quad |P_i| \ge 1, \quad |C_i \setminus P_i| \ge 1$$

    In group scope: the group of $i$ has another correct rollout and a wrong one. Only group and verdict count, so this
    reads nothing from the device, whatever the form of `groups`.

    Args:
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        scope: As in `contrastive_loss`. `"cross"`: another correct rollout in the group, and in the batch any that is
            not one. `"batch"`: another correct rollout and a wrong one anywhere.
        anchors: As in `contrastive_loss`; `"all"` does without "$i$ correct", and $P_i$ is of the verdict of $i$.

    Returns:
        True for anchors. Their number is what `reduction="mean"` divides by.

    Raises:
        ValueError: Unknown `scope` or `anchors`; `groups` for another number of rollouts.

    Source:
        CLIPO (arXiv 2603.10101).

    Examples:
        >>> contrastive_anchors(torch.tensor([True, True, False, True, True]), torch.tensor([0, 0, 0, 1, 1]))
        tensor([ True,  True, False, False, False])
    """
    require_rollouts(len(success), "groups", len(groups.position if isinstance(groups, GroupLayout) else groups))
    whole = torch.zeros_like(success, dtype=torch.long)  # the batch as one group
    pool = whole if scope == "batch" else groups
    over_group = group_reducer(pool, len(success))
    correct, wrong = (over_group(verdict.long(), "sum") for verdict in (success, success.logical_not()))
    alike = torch.where(success, correct, wrong)
    candidates = len(success) if scope == "cross" else correct + wrong
    is_anchor = (alike >= 2) & (alike < candidates)
    return is_anchor & success if anchors == "success" else is_anchor


def _within_groups(
    losses_of: _Losses, embeddings: Tensor, success: Tensor, layout: GroupLayout, anchors: str
) -> tuple[Tensor, Tensor]:
    """Losses and anchors of each slot; the anchors as `contrastive_anchors` has them, counted where they lie."""
    right, wrong, pairs = success_pairs(success, layout)
    correct, incorrect = right.sum(1, keepdim=True), wrong.sum(1, keepdim=True)
    is_anchor = right & (correct >= 2) & (incorrect >= 1)
    alike = right.unsqueeze(1)  # to a correct anchor
    if anchors == "all":
        is_anchor = is_anchor | (wrong & (incorrect >= 2) & (correct >= 1))
        alike = right.unsqueeze(2) == alike
    positives = pairs & alike
    rows = readable_rows(is_anchor.flatten())
    cosines = group_cosines(embeddings, layout, rows)
    if rows is None:
        return losses_of(cosines, positives, pairs, is_anchor), is_anchor
    positives, pairs = (mask.flatten(0, 1).index_select(0, rows) for mask in (positives, pairs))
    losses = losses_of(cosines, positives, pairs, None)
    return losses.new_zeros(is_anchor.numel()).index_copy(0, rows, losses).view_as(is_anchor), is_anchor


def _rows_of_batch(
    losses_of: _Losses,
    cosines: Tensor,
    rows: Tensor,
    *,
    success: Tensor,
    is_anchor: Tensor | None,
    number: Tensor | None,
) -> Tensor:
    """Losses of some rows of the batch against all of it.

    `is_anchor` is given where rows may be none, and `number` where positives are of the same group.
    """

    def pairs(values: Tensor) -> Tensor:
        return values.index_select(0, rows).unsqueeze(1) == values

    others = pairs(torch.arange(len(success), device=success.device)).logical_not()
    positives = others & pairs(success)
    if number is not None:
        positives = positives & pairs(number)
    return losses_of(cosines, positives, others, None if is_anchor is None else is_anchor.index_select(0, rows))
