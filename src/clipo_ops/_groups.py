"""Which rollouts answer the same prompt, and statistics over them.

Group work never builds a rollouts x rollouts matrix: a `GroupLayout` lays rollouts out as `[groups, slots]`,
where a group's rollouts stand next to each other, and everything pairwise happens inside a row.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from clipo_ops._typing import require, require_rollouts, shaped


class GroupLayout(NamedTuple):
    """Rollouts laid out by group: build it once per batch and pass it wherever `groups` is asked for.

    Every function that takes `groups` also takes the ids themselves, `Int[Tensor, " rollouts"]`, of any value, in
    any order, in groups of any sizes. A layout saves sorting them again and, made by `from_size`, never makes the
    host wait for the device.

    Memory is `groups * slots`, where `slots` is the size of the largest group.

    Attributes:
        members: The rollout in each slot. Slots beyond a group's size repeat its first rollout.
        valid: True where the slot holds a rollout of its own.
        position: The slot of each rollout, counted row by row.
        ordered: Rollout i stands in slot i and no slot is empty, so that laying out is a view.

    Examples:
        >>> layout = GroupLayout.from_ids(torch.tensor([7, 3, 7, 7]))
        >>> layout.gather(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        tensor([[1., 1., 1.],
                [0., 2., 3.]])
        >>> layout.valid
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """

    members: Int[Tensor, "groups slots"]
    valid: Bool[Tensor, "groups slots"]
    position: Int[Tensor, " rollouts"]
    ordered: bool

    @staticmethod
    @shaped
    def from_ids(group_ids: Int[Tensor, " rollouts"]) -> "GroupLayout":
        """Lays out rollouts by their group's id, in ascending order of id.

        The number of groups and the size of the largest one are read back from the device: one host sync, which
        also means that this constructor belongs outside a compiled region.

        Args:
            group_ids: Any integers; rollouts with the same one form a group.
        """
        order, starts_here = _sorted_groups(group_ids)
        rollouts = torch.arange(len(order), device=order.device)
        starts = rollouts[starts_here]
        sizes = torch.diff(starts, append=starts.new_tensor([len(order)]))
        slots = int(sizes.max()) if len(sizes) else 1
        slot = torch.arange(slots, device=order.device)
        valid = slot < sizes[:, None]
        members = order[torch.where(valid, starts[:, None] + slot, starts[:, None])]
        group = torch.cumsum(starts_here, 0) - 1
        position = torch.empty_like(order)
        position[order] = group * slots + rollouts - starts[group]
        ordered = members.numel() == len(order) and bool((order == rollouts).all())
        return GroupLayout(members, valid, position, ordered)

    @staticmethod
    def from_size(rollouts: int, size: int, *, device: torch.device | str) -> "GroupLayout":
        """Lays out consecutive groups of one size: rollouts 0..size-1 are the first group, and so on.

        Nothing is read from the device.

        Args:
            rollouts: Number of rollouts; a multiple of `size`.
            size: Rollouts in a group.
            device: Where the rollouts' tensors are.

        Raises:
            ValueError: `size` is below 1 or does not divide `rollouts`, or `rollouts` is below 0.
        """
        require(size >= 1, "size", "at least 1", size)
        require(rollouts >= 0, "rollouts", "at least 0", rollouts)
        require(rollouts % size == 0, "rollouts", f"a multiple of the group size {size}", rollouts)
        position = torch.arange(rollouts, device=device)
        valid = torch.ones(rollouts // size, size, dtype=torch.bool, device=device)
        return GroupLayout(position.view(-1, size), valid, position, True)

    def gather(self, values: Shaped[Tensor, "rollouts ..."]) -> Shaped[Tensor, "groups slots ..."]:
        """One row per rollout -> one row per slot. A slot that is not `valid` holds a copy of its group's first
        rollout, through which no gradient flows.
        """
        require_rollouts(len(self.position), "values", len(values))
        if self.ordered:
            return values.reshape(self.members.shape + values.shape[1:])
        laid_out: Tensor = _Gather.apply(values, self.members.flatten(), self.position)  # type: ignore[no-untyped-call]
        return laid_out.view(self.members.shape + values.shape[1:])

    def scatter(self, values: Shaped[Tensor, "groups slots ..."]) -> Shaped[Tensor, "rollouts ..."]:
        """One row per slot -> one row per rollout: the inverse of `gather`."""
        flat = values.flatten(0, 1)
        return flat if self.ordered else flat.index_select(0, self.position)


Groups: TypeAlias = Int[Tensor, " rollouts"] | GroupLayout


def as_layout(groups: Groups, rollouts: int) -> GroupLayout:
    """The layout of `groups`, checked to be for as many rollouts as there are."""
    layout = groups if isinstance(groups, GroupLayout) else GroupLayout.from_ids(groups)
    require_rollouts(rollouts, "groups", len(layout.position))
    return layout


def group_numbers(groups: Groups) -> Int[Tensor, " rollouts"]:
    """A number below `rollouts` for each rollout's group: static shapes and no host sync, whatever the ids."""
    if isinstance(groups, GroupLayout):
        return groups.position // groups.members.shape[1]
    order, starts_here = _sorted_groups(groups)
    place = torch.arange(len(order), device=order.device)
    start = torch.where(starts_here, place, 0).cummax(0).values
    return torch.empty_like(order).scatter(0, order, start)


class Moments(NamedTuple):
    """Of each rollout: its value less its group's mean, the group's sum of squares of that, and the group's size."""

    centered: Tensor
    squares: Tensor
    size: Tensor


def group_moments(values: Shaped[Tensor, " rollouts"], groups: Groups) -> Moments:
    """Values less their group's mean, and what a standard deviation needs.

    Values that are NaN or infinite are left out of their group, and centred to 0. Differences to the group's largest
    value are averaged rather than the values themselves, so that a constant group comes out as exactly 0, and nothing
    is lost where values are large next to their spread.
    """
    if isinstance(groups, GroupLayout):
        layout = as_layout(groups, len(values))
        return Moments(*(layout.scatter(column.expand_as(layout.valid)) for column in _row_moments(values, layout)))
    number = group_numbers(groups)
    known = values.isfinite()
    return _moments(values, known, lambda column, reduce: _over_segment(column, number, reduce))


def group_zscores(values: Shaped[Tensor, " rollouts"], groups: Groups, eps: float) -> Shaped[Tensor, " rollouts"]:
    """Values less their group's mean, over its standard deviation; a constant group is exactly 0."""
    if not isinstance(groups, GroupLayout):
        return _zscores(group_moments(values, groups), eps)
    layout = as_layout(groups, len(values))
    return layout.scatter(_zscores(_row_moments(values, layout), eps))


def group_reducer(groups: Groups, rollouts: int) -> Callable[[Tensor, str], Tensor]:
    """A function that reduces one value per rollout over its group, by "sum" or "amax", and gives every rollout its
    group's result.
    """
    if not isinstance(groups, GroupLayout):
        number = group_numbers(groups)
        return lambda values, reduce: _over_segment(values, number, reduce)
    layout = as_layout(groups, rollouts)

    def over_group(values: Tensor, reduce: str) -> Tensor:
        rows = torch.where(layout.valid, layout.gather(values), -torch.inf if reduce == "amax" else 0)
        return layout.scatter(_over_row(rows, reduce).expand_as(layout.valid))

    return over_group


def standardized(centered: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Centred values over their standard deviation; exactly 0, with a finite gradient, where nothing varies."""
    constant = variance == 0
    deviation = torch.where(constant, 1, variance).sqrt() + eps
    return torch.where(constant, 0, centered / deviation)


def _zscores(moments: Moments, eps: float) -> Tensor:
    return standardized(moments.centered, moments.squares / (moments.size - 1).clamp(min=1), eps)


def _row_moments(values: Tensor, layout: GroupLayout) -> Moments:
    """Those of the slots of each group; what all of a group share has one column."""
    rows = layout.gather(values)
    known = rows.isfinite()
    return _moments(rows, known if layout.ordered else known & layout.valid, _over_row)


def _moments(values: Tensor, known: Tensor, over_group: Callable[[Tensor, str], Tensor]) -> Moments:
    largest = over_group(torch.where(known, values.detach(), -torch.inf), "amax")
    shifted = torch.where(known, values - largest, 0)
    size = over_group(known.to(values.dtype), "sum")
    centered = torch.where(known, shifted - over_group(shifted, "sum") / size.clamp(min=1), 0)
    return Moments(centered, over_group(centered.square(), "sum"), size)


def _over_row(rows: Tensor, reduce: str) -> Tensor:
    return rows.amax(1, keepdim=True) if reduce == "amax" else rows.sum(1, keepdim=True)


def _over_segment(values: Tensor, number: Tensor, reduce: str) -> Tensor:
    empty = torch.full_like(values, -torch.inf if reduce == "amax" else 0)
    return empty.scatter_reduce(0, number, values, reduce).index_select(0, number)


def _sorted_groups(group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The rollouts in order of their ids, and which of them begin a group."""
    ids, order = torch.sort(group_ids, stable=True)
    is_first = torch.arange(len(ids), device=ids.device) == 0
    return order, is_first | (ids != ids.roll(1))


class _Gather(torch.autograd.Function):
    """`values[index]`, whose backward is a gather too: every rollout has one slot of its own, so nothing needs
    adding up (the backward of advanced indexing costs several times as much).
    """

    @staticmethod
    def forward(values: Tensor, index: Tensor, position: Tensor) -> Tensor:
        return values.index_select(0, index)

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        (position,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grads[0].index_select(0, position), None, None
