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
from clipo_ops._kernels.gram import group_cosines, success_pairs
from clipo_ops._kernels.tiles import tiled_losses
from clipo_ops._numerics import rounded
from clipo_ops._typing import require, require_rollouts, shaped

Scope = Literal["group", "cross", "batch"]
Anchors = Literal["success", "all"]
Similarity = Literal["cosine", "l2"]
Offset = Literal["none", "log_positives"]
Reduction = Literal["mean", "sum", "none"]

_LEAST_SQUARE = 1e-8  # as the official code; the slope of a root at 0 is infinite


# Cosines, positives, candidates and which rows are anchors -> losses.
_RowLosses = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


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
    offset: Offset = "none",
    reduction: Reduction = "mean",
) -> Float[Tensor, " rollouts"] | Float[Tensor, ""]:
    r"""Returns a loss that pulls the correct rollouts of a group together and away from its incorrect ones.

    An anchor is a correct rollout $i$ whose group has another correct and an incorrect rollout. The logits of the
    anchor against the other rollouts of its group are cosines minus 1, over a temperature:

    $$s_{ia} = \frac{1}{\tau} \Big(\frac{z_i \cdot z_a}{\lVert z_i \rVert\, \lVert z_a \rVert} - 1\Big)$$

    The objective, by default `infonce`, turns these logits into the loss of the anchor, given which of them are its
    positives $P_i$, the other correct rollouts. Rollouts that are not anchors have loss 0. An anchor is never its own
    candidate.

    Group scope takes time and memory proportional to rollouts x group size. The other two scopes take time
    proportional to rollouts x rollouts, but compute the matrix in tiles of 64 MiB and again in the backward pass, so
    that the whole of it never exists.

    Args:
        embeddings: One vector $z_i$ per rollout, of any length. A vector of norm below 1e-6 has no direction: its
            cosines are 0 and it gets no gradient.
        success: True for correct rollouts. Use the verifier's verdict; a reward above 0 may be credit for the format.
        groups: Group ids, or a `GroupLayout` (needed inside `torch.compile` for group scope).
        objective: The loss of an anchor given its row of logits: one of ours or any `Objective`.
        scope: Where an anchor's positives and other candidates come from. `"group"`: both from its group. `"cross"`:
            positives from its group, candidates from the whole batch, including correct rollouts of other prompts.
            `"batch"`: both from the whole batch, by success alone. An anchor has a positive, and a candidate that is
            not one.
        anchors: `"success"`, or `"all"` to make every rollout an anchor whose positives share its verdict. Incorrect
            rollouts are then pulled together too, and get a loss, which should not become a reward.
        similarity: `"cosine"`, or `"l2"`: 1 minus the distance of the normalised vectors, so that
            $s_{ia} = -\sqrt{\max(2 - 2 \cos, 10^{-8})} / \tau$.
        temperature: $\tau$, above 0.
        offset: `"log_positives"` subtracts $\log |P_i|$ from each loss, the lower bound of `supcon_in` and
            `supcon_out`, and of `infonce` in expectation (a single draw may fall below 0). It makes no sense for
            `soft_nearest_neighbor`, `sincere` and `centroid`, whose lower bound is 0, nor for `dcl`, which has none.
        reduction: `"none"` returns the loss of every rollout, 0 where it is not an anchor, as `contrastive_reward`
            expects. `"sum"` adds them up; `"mean"` divides the sum by the number of anchors, and is 0 without any.

    Returns:
        One loss per rollout, or a scalar; in the embeddings' dtype, computed in at least float32, also under autocast.
        It has second derivatives in every scope.

    Raises:
        ValueError: `temperature` not above 0; unknown `scope`, `anchors`, `similarity`, `offset` or `reduction`;
            `groups` for another number of rollouts.

    Source:
        CLIPO (arXiv 2603.10101) and its official code, which adds an epsilon inside the logarithm and subtracts the
        anchor's similarity to itself as the maximum; we do neither.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> success = torch.tensor([True, True, False, False])
        >>> groups = torch.tensor([0, 0, 0, 0])
        >>> contrastive_loss(embeddings, success, groups, temperature=0.5, reduction="none")
        tensor([0.6271, 1.1143, 0.0000, 0.0000])
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)

    def row_losses(cosines: Tensor, positives: Tensor, candidates: Tensor, anchor_mask: Tensor) -> Tensor:
        idle = anchor_mask.logical_not().unsqueeze(-1)
        logits = (_negative_distances(cosines, similarity) / temperature).masked_fill(idle, 0)
        losses = objective(logits, positives | idle, candidates | idle)
        if offset == "log_positives":
            losses = losses - positives.sum(-1).clamp(min=1).to(losses.dtype).log()
        return torch.where(anchor_mask, losses, 0)

    if scope == "group":
        layout = as_layout(groups, len(success))
        anchor_mask = contrastive_anchors(success, layout, anchors=anchors)
        losses = _group_losses(row_losses, embeddings, success, layout, anchor_mask)
    else:
        anchor_mask = contrastive_anchors(success, groups, scope=scope, anchors=anchors)
        pool = group_numbers(groups) if scope == "cross" else _one_group(success)
        losses = tiled_losses(embeddings, partial(_tile_losses, row_losses, success, pool, anchor_mask))
    if reduction != "none":
        losses = losses.sum()
    if reduction == "mean":
        losses = losses / anchor_mask.sum().clamp(min=1)
    return rounded(losses, embeddings.dtype)


@shaped
def contrastive_anchors(
    success: Bool[Tensor, " rollouts"], groups: Groups, *, scope: Scope = "group", anchors: Anchors = "success"
) -> Bool[Tensor, " rollouts"]:
    r"""Returns which rollouts `contrastive_loss` takes as anchors.

    $$i \text{ correct}, \quad |P_i| \ge 1, \quad |C_i \setminus P_i| \ge 1$$

    In group scope: the group of $i$ has another correct rollout and an incorrect one. The result depends only on
    groups and verdicts, so that the host never waits for the device.

    Args:
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        scope: As in `contrastive_loss`. `"cross"`: another correct rollout in the group, and any rollout in the batch
            that is not one. `"batch"`: another correct rollout and an incorrect one anywhere.
        anchors: As in `contrastive_loss`. With `"all"`, $i$ need not be correct, and $P_i$ shares its verdict.

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
    over_pool = group_reducer(_one_group(success) if scope == "batch" else groups, len(success))
    correct, incorrect = (over_pool(verdict.long(), "sum") for verdict in (success, success.logical_not()))
    alike = torch.where(success, correct, incorrect)
    candidates = len(success) if scope == "cross" else correct + incorrect
    is_anchor = (alike >= 2) & (alike < candidates)
    return is_anchor & success if anchors == "success" else is_anchor


def _one_group(success: Tensor) -> Tensor:
    return torch.zeros_like(success, dtype=torch.long)


def _negative_distances(cosines: Tensor, similarity: str) -> Tensor:
    """Similarity minus 1: of cosines, or minus the distance of two vectors of length one."""
    if similarity == "cosine":
        return cosines - 1
    return -(2 - 2 * cosines).clamp(min=_LEAST_SQUARE).sqrt()


def _group_losses(
    row_losses: _RowLosses, embeddings: Tensor, success: Tensor, layout: GroupLayout, anchor_mask: Tensor
) -> Tensor:
    """Losses of all rollouts, each against its group."""
    correct, _, candidates = success_pairs(success, layout)
    positives = candidates & (correct.unsqueeze(2) == correct.unsqueeze(1))
    anchors = layout.gather(anchor_mask) & layout.valid
    return layout.scatter(row_losses(group_cosines(embeddings, layout), positives, candidates, anchors))


def _tile_losses(
    row_losses: _RowLosses, success: Tensor, pool: Tensor, anchor_mask: Tensor, cosines: Tensor, rows: Tensor
) -> Tensor:
    """Losses of some rows against all rollouts; positives are of the same pool."""

    def pairs(values: Tensor) -> Tensor:
        return values.index_select(0, rows).unsqueeze(1) == values

    candidates = pairs(torch.arange(len(success), device=success.device)).logical_not()
    positives = candidates & pairs(success) & pairs(pool)
    return row_losses(cosines, positives, candidates, anchor_mask.index_select(0, rows))
