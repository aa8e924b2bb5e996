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
        _, group, sizes = torch.unique(group_ids, return_inverse=True, return_counts=True)
        order = group.argsort(stable=True)  # the rollouts, one group after the other
        starts = sizes.cumsum(0) - sizes
        slots = int(sizes.max()) if len(sizes) else 1
        slot = torch.arange(slots, device=order.device)
        valid = slot < sizes[:, None]
        members = order[starts[:, None] + torch.where(valid, slot, 0)]
        rollouts = torch.arange(len(order), device=order.device)
        position = torch.empty_like(order)
        position[order] = group[order] * slots + rollouts - starts[group[order]]
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
        """One row per rollout -> one row per slot.

        A slot that is not `valid` holds a copy of its group's first rollout and passes no gradient back.
        """
        require_rollouts(len(self.position), "values", len(values))
        if self.ordered:
            return values.reshape(self.members.shape + values.shape[1:])
        laid_out = values.index_select(0, self.members.flatten()).view(self.members.shape + values.shape[1:])
        if not laid_out.requires_grad:
            return laid_out
        return torch.where(_column(self.valid, laid_out), laid_out, laid_out.detach())

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
    ids, order = torch.sort(groups, stable=True)
    place = torch.arange(len(ids), device=ids.device)
    starts_here = (place == 0) | (ids != ids.roll(1))
    start = torch.where(starts_here, place, 0).cummax(0).values
    return torch.empty_like(order).scatter(0, order, start)


Reducer: TypeAlias = Callable[[Tensor, str], Tensor]


def group_reducer(groups: Groups, rollouts: int) -> Reducer:
    """A function that reduces values over groups, by "sum" or "amax", and gives every rollout its group's result.

    With ids it scatters, which waits for nothing; with a layout it reduces over the slots.
    """
    if not isinstance(groups, GroupLayout):
        number = group_numbers(groups)

        def over_ids(values: Tensor, by: str) -> Tensor:
            identity = torch.full_like(values, -torch.inf if by == "amax" else 0)
            reduced = identity.scatter_reduce(0, _column(number, values).expand_as(values), values, by)
            return reduced.index_select(0, number)

        return over_ids

    layout = as_layout(groups, rollouts)

    def over_slots(values: Tensor, by: str) -> Tensor:
        rows = layout.gather(values)
        rows = torch.where(_column(layout.valid, rows), rows, -torch.inf if by == "amax" else 0)
        reduced = rows.amax(1, keepdim=True) if by == "amax" else rows.sum(1, keepdim=True)
        return layout.scatter(reduced.expand_as(rows))

    return over_slots


class Moments(NamedTuple):
    """The statistics of each rollout's group: all have the values' shape.

    Attributes:
        mean: The mean of the group's finite values.
        centered: The value less that mean; 0 where the value is not finite.
        variance: The sample variance (n - 1); 0 in a group of one.
        size: How many of the group's values are finite.
    """

    mean: Tensor
    centered: Tensor
    variance: Tensor
    size: Tensor


def group_moments(values: Shaped[Tensor, "rollouts ..."], groups: Groups) -> Moments:
    """Mean, deviations from it, variance and size of each rollout's group, over its finite values.

    What is averaged are differences to the group's largest value, not the values: a constant group then has deviations
    of exactly 0, and values that are large next to their spread lose nothing.
    """
    return _moments(values, group_reducer(groups, len(values)))


def _moments(values: Tensor, over_group: Reducer) -> Moments:
    known = values.isfinite()
    size = over_group(known.to(values.dtype), "sum")
    largest = over_group(torch.where(known, values.detach(), -torch.inf), "amax")
    largest = torch.where(size > 0, largest, 0)
    below = torch.where(known, values - largest, 0)
    mean_below = over_group(below, "sum") / size.clamp(min=1)
    centered = torch.where(known, below - mean_below, 0)
    variance = over_group(centered.square(), "sum") / (size - 1).clamp(min=1)
    return Moments(largest + mean_below, centered, variance, size)


def group_zscores(values: Shaped[Tensor, " rollouts"], groups: Groups, eps: float) -> Shaped[Tensor, " rollouts"]:
    """Values less their group's mean, over its standard deviation plus eps; a constant group is exactly 0."""
    group = group_moments(values, groups)
    return standardized(group.centered, group.variance, eps)


def standardized(centered: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Centered values over their standard deviation plus eps; exactly 0, with a finite gradient, without variance."""
    constant = variance == 0
    deviation = torch.where(constant, 1, variance).sqrt() + eps
    return torch.where(constant, 0, centered / deviation)


def weighted_centered(
    values: Shaped[Tensor, "rollouts ..."], weights: Shaped[Tensor, "rollouts ..."], groups: Groups
) -> Shaped[Tensor, "rollouts ..."]:
    """Values less their group's weighted mean; 0 where a value is not finite, and in a group without weight."""
    over_group = group_reducer(groups, len(values))
    known = values.isfinite()
    centered = _moments(values, over_group).centered
    weights = torch.where(known, weights, 0)
    total = over_group(weights, "sum")
    weighs = total > 0
    baseline = over_group(weights * centered, "sum") / torch.where(weighs, total, 1)
    return torch.where(known & weighs, centered - baseline, 0)


def _column(narrow: Tensor, wide: Tensor) -> Tensor:
    """A view of a tensor that lines up with the leading axes of another one."""
    return narrow.view(narrow.shape + (1,) * (wide.ndim - narrow.ndim))
