"""Group layouts: any ids, any order, any sizes, without a rollouts x rollouts matrix."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, grpo_advantages, opo_advantages

from . import oracles
from .helpers import assert_equal, assert_same, gradients
from .strategies import group_ids, noise


@given(group_ids())
def test_a_row_holds_the_rollouts_of_one_group_in_their_order(ids: Tensor) -> None:
    layout = GroupLayout.from_ids(ids)
    rows = [members[valid].tolist() for members, valid in zip(layout.members, layout.valid, strict=True)]
    assert rows == oracles.members(ids)


@given(group_ids())
def test_a_slot_beyond_a_group_repeats_its_first_rollout(ids: Tensor) -> None:
    layout = GroupLayout.from_ids(ids)
    first = layout.members[:, :1].expand_as(layout.members)
    assert torch.equal(layout.members[~layout.valid], first[~layout.valid])


@given(group_ids())
def test_memory_is_the_number_of_groups_times_the_largest(ids: Tensor) -> None:
    groups = oracles.members(ids)
    assert GroupLayout.from_ids(ids).members.shape == (len(groups), max(map(len, groups)))


@given(group_ids())
def test_scatter_undoes_gather_in_value_and_gradient(ids: Tensor) -> None:
    layout, values = GroupLayout.from_ids(ids), noise(0, len(ids), 3)
    there_and_back = gradients(lambda x: layout.scatter(layout.gather(x)), values)
    assert_equal(there_and_back, gradients(torch.clone, values))


@given(group_ids())
def test_no_gradient_flows_through_a_repeated_rollout(ids: Tensor) -> None:
    layout = GroupLayout.from_ids(ids)
    _, grad = gradients(lambda x: torch.where(layout.valid, 1.0, float("nan")) * layout.gather(x), noise(0, len(ids)))
    assert grad.isfinite().all()


@given(group_ids(max_size=8))
def test_gather_and_scatter_pass_gradcheck(ids: Tensor) -> None:
    layout = GroupLayout.from_ids(ids)
    values = noise(0, len(ids), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layout.scatter(layout.gather(x).square()), (values,))
    assert torch.autograd.gradgradcheck(lambda x: layout.scatter(layout.gather(x).square()), (values,))


@given(st.integers(1, 4), st.integers(1, 5))
def test_from_size_equals_from_ids(groups: int, size: int) -> None:
    rollouts = groups * size
    by_size = GroupLayout.from_size(rollouts, size, device="cpu")
    by_ids = GroupLayout.from_ids(torch.arange(rollouts) // size)
    assert by_size.ordered
    assert by_ids.ordered
    assert_same(tuple(by_size), tuple(by_ids))


@given(group_ids())
def test_ordered_says_that_laying_out_changes_nothing(ids: Tensor) -> None:
    layout = GroupLayout.from_ids(ids)
    in_place = layout.members.flatten().tolist() == list(range(len(ids)))
    assert layout.ordered == (in_place and bool(layout.valid.all()))


def test_an_ordered_layout_is_a_view() -> None:
    values = torch.zeros(6, 2)
    rows = GroupLayout.from_size(6, 3, device="cpu").gather(values)
    assert rows.shape == (2, 3, 2)
    assert rows.data_ptr() == values.data_ptr()


def test_extreme_ids_are_told_apart() -> None:
    low, high = -(2**63), 2**63 - 1
    layout = GroupLayout.from_ids(torch.tensor([high, low, 0, high, -1, low]))
    assert layout.members[layout.valid].tolist() == [1, 5, 4, 2, 0, 3]


def test_a_rollout_alone_is_a_group() -> None:
    layout = GroupLayout.from_ids(torch.tensor([42]))
    assert layout.members.tolist() == [[0]]
    assert layout.ordered


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_trailing_axes_come_along(trailing: tuple[int, ...]) -> None:
    layout = GroupLayout.from_ids(torch.tensor([1, 0, 1]))
    assert layout.gather(torch.zeros(3, *trailing)).shape == (2, 2, *trailing)
    assert layout.scatter(torch.zeros(2, 2, *trailing)).shape == (3, *trailing)


forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own, once


@forward_mode
@given(group_ids(max_size=8))
def test_laying_out_has_a_tangent(ids: Tensor) -> None:
    layout, values = GroupLayout.from_ids(ids), noise(0, len(ids), 2)
    _, tangent = torch.func.jvp(lambda x: layout.scatter(layout.gather(x).square()), (values,), (values.square(),))
    assert_same(tangent, 2 * values**3)


STATISTICS = {
    "grpo": lambda r, g: grpo_advantages(r, g),
    "batch": lambda r, g: grpo_advantages(r, g, scale="batch"),
    "opo": lambda r, g: opo_advantages(r, torch.arange(len(r)), g),
}


@forward_mode
@pytest.mark.parametrize("statistic", STATISTICS.values(), ids=STATISTICS)
@given(st.integers(1, 2), st.integers(2, 4))
def test_statistics_have_right_second_derivatives_and_tangents(
    statistic: Callable[[Tensor, Tensor | GroupLayout], Tensor], groups: int, size: int
) -> None:
    ids, rewards = torch.arange(groups * size) % groups, noise(0, groups * size).requires_grad_()
    for form in (ids, GroupLayout.from_ids(ids)):
        check_forward = isinstance(form, GroupLayout)  # PyTorch refuses forward mode through scatter_reduce
        assert torch.autograd.gradcheck(lambda r, g=form: statistic(r, g), (rewards,), check_forward_ad=check_forward)
        assert torch.autograd.gradgradcheck(lambda r, g=form: statistic(r, g), (rewards,))
