"""Group advantages: exact zeros where nothing differs, and invariances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, grpo_advantages

from . import oracles
from .helpers import ALL_FLOATS, HALF, assert_rounded, assert_same, gradients
from .strategies import SEEDS, graded_groups, group_ids, noise

Graded = tuple[Tensor, Tensor]
every_scale = pytest.mark.parametrize("scale", ["group", "batch", "none"])


@every_scale
@given(graded_groups())
def test_agrees_with_the_oracle(scale: str, graded: Graded) -> None:
    rewards, ids = graded
    assert_same(grpo_advantages(rewards, ids, scale=scale), oracles.grpo_advantages(rewards, ids, scale=scale))


@every_scale
@given(graded_groups())
def test_float32_agrees_with_the_oracle(scale: str, graded: Graded) -> None:
    rewards, ids = graded[0].float(), graded[1]
    exact = oracles.grpo_advantages(rewards, ids, scale=scale)
    torch.testing.assert_close(grpo_advantages(rewards, ids, scale=scale).double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(graded_groups())
def test_half_precision_is_rounded_once(dtype: torch.dtype, graded: Graded) -> None:
    rewards, ids = graded[0].to(dtype), graded[1]
    assert_rounded(grpo_advantages(rewards, ids), oracles.grpo_advantages(rewards, ids), dtype, slack=1e-4)


@every_scale
@given(graded_groups())
def test_ids_and_layout_agree(scale: str, graded: Graded) -> None:
    rewards, ids = graded
    layout = GroupLayout.from_ids(ids)
    assert_same(grpo_advantages(rewards, layout, scale=scale), grpo_advantages(rewards, ids, scale=scale))


@every_scale
@given(st.integers(1, 4), st.integers(2, 5), SEEDS)
def test_ids_layout_and_ordered_layout_agree_in_value_and_gradient(
    scale: str, groups: int, size: int, seed: int
) -> None:
    ids = torch.arange(groups * size) // size
    forms = [ids, GroupLayout.from_ids(-ids), GroupLayout.from_size(len(ids), size, device="cpu")]
    results = [gradients(lambda x, f=f: grpo_advantages(x, f, scale=scale), noise(seed, len(ids))) for f in forms]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@every_scale
@given(
    dtype=st.sampled_from(ALL_FLOATS),
    eps=st.sampled_from([0.0, 1e-9, 1e-6]),
    constants=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5),
    size=st.integers(1, 33),
)
def test_a_constant_group_has_advantage_exactly_zero(
    scale: str, dtype: torch.dtype, eps: float, constants: list[float], size: int
) -> None:
    rewards = torch.tensor(constants, dtype=dtype).repeat_interleave(size)
    ids = torch.arange(len(constants)).repeat_interleave(size)
    for groups in (ids, GroupLayout.from_size(len(ids), size, device="cpu"), GroupLayout.from_ids(-ids)):
        assert grpo_advantages(rewards, groups, scale=scale, eps=eps).count_nonzero() == 0


@every_scale
@given(group_ids(), st.floats(-1e6, 1e6))
def test_one_constant_reward_in_interleaved_groups_is_exactly_zero(scale: str, ids: Tensor, constant: float) -> None:
    rewards = torch.full((len(ids),), constant, dtype=torch.float32)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert grpo_advantages(rewards, groups, scale=scale).count_nonzero() == 0


@every_scale
@given(graded_groups())
def test_a_group_adds_up_to_zero(scale: str, graded: Graded) -> None:
    rewards, ids = graded
    advantages = grpo_advantages(rewards, ids, scale=scale)
    for group in oracles.members(ids):
        assert advantages[group].sum().abs() <= 1e-9 * max(1, rewards.abs().max())


@every_scale
@given(graded_groups(), st.floats(-1e3, 1e3))
def test_a_shift_changes_nothing(scale: str, graded: Graded, shift: float) -> None:
    rewards, ids = graded
    shifts = torch.full_like(rewards, shift)
    assert_same(
        grpo_advantages(rewards + shifts, ids, scale=scale),
        grpo_advantages(rewards, ids, scale=scale),
        atol=2e-7,  # of rounding the shifted rewards, over eps
    )


@pytest.mark.parametrize("scale", ["group", "none"])
@given(graded_groups(), SEEDS)
def test_every_group_may_shift_by_itself(scale: str, graded: Graded, seed: int) -> None:
    rewards, ids = graded
    shifts = torch.round(noise(seed, len(oracles.members(ids))) * 8)
    for shift, group in zip(shifts, oracles.members(ids), strict=True):
        rewards[group] += shift
    shifted = grpo_advantages(rewards, ids, scale=scale)
    for shift, group in zip(shifts, oracles.members(ids), strict=True):
        rewards[group] -= shift
    assert_same(shifted, grpo_advantages(rewards, ids, scale=scale), atol=2e-7)


@pytest.mark.parametrize("power", range(-3, 7))
@pytest.mark.parametrize("scale", ["group", "batch"])
def test_the_unit_of_the_reward_does_not_matter_down_to_a_thousandth(scale: str, power: int) -> None:
    rewards, ids = torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0, 5.0, 3.0]), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    plain = grpo_advantages(rewards, ids, scale=scale)
    torch.testing.assert_close(grpo_advantages(rewards * 10.0**power, ids, scale=scale), plain, rtol=3e-3, atol=0)


def test_below_eps_noise_is_not_scaled_up() -> None:
    advantages = grpo_advantages(torch.tensor([1e-9, 0.0, 0.0, 0.0]), torch.zeros(4).long())
    assert advantages.abs().max() < 1e-3


@every_scale
@given(graded_groups(), SEEDS)
def test_the_order_of_rollouts_does_not_matter(scale: str, graded: Graded, seed: int) -> None:
    rewards, ids = graded
    order = noise(seed, len(ids)).argsort()
    permuted = grpo_advantages(rewards[order], ids[order], scale=scale)
    assert_same(permuted, grpo_advantages(rewards, ids, scale=scale)[order])


@pytest.mark.parametrize("scale", ["group", "none"])
@given(graded_groups())
def test_groups_are_independent(scale: str, graded: Graded) -> None:
    rewards, ids = graded
    together = grpo_advantages(rewards, ids, scale=scale)
    for group in oracles.members(ids):
        assert_same(together[group], grpo_advantages(rewards[group], ids[group], scale=scale))


def test_a_singleton_does_not_let_its_reward_through() -> None:
    assert grpo_advantages(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([4, 9, 9]))[0] == 0


@every_scale
@given(st.integers(1, 3), st.integers(2, 4), SEEDS)
def test_passes_gradcheck(scale: str, groups: int, size: int, seed: int) -> None:
    ids = torch.arange(groups * size) % groups
    rewards = noise(seed, len(ids)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: grpo_advantages(x, ids, scale=scale), (rewards,))


@every_scale
def test_passes_gradcheck_where_a_reward_equals_the_mean(scale: str) -> None:
    rewards = torch.tensor([0.0, 1.0, 2.0, 5.0, 7.0], dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([0, 0, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: grpo_advantages(x, ids, scale=scale), (rewards,))


@every_scale
@pytest.mark.parametrize("size", [1, 4])
def test_a_constant_group_has_a_finite_gradient(scale: str, size: int) -> None:
    rewards = torch.tensor([0.3] * size + [1.0, 0.0])
    ids = torch.tensor([0] * size + [1, 1])
    _, grad = gradients(lambda x: grpo_advantages(x, ids, scale=scale), rewards)
    assert grad.isfinite().all()


@every_scale
def test_a_constant_batch_has_a_finite_gradient(scale: str) -> None:
    _, grad = gradients(lambda x: grpo_advantages(x, torch.zeros(4).long(), scale=scale), torch.ones(4))
    assert grad.isfinite().all()


@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_reward_of_nan_stays_in_its_group(scale: str) -> None:
    advantages = grpo_advantages(torch.tensor([torch.nan, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]), scale=scale)
    assert_same(advantages[2:], grpo_advantages(torch.tensor([1.0, 0.0]), torch.tensor([1, 1]), scale=scale))


@every_scale
@given(graded_groups(), SEEDS)
def test_an_unscorable_rollout_is_left_out_of_the_baseline_and_has_no_advantage(
    scale: str, graded: Graded, seed: int
) -> None:
    rewards, ids = graded
    known = noise(seed, len(ids)) > -0.5
    rewards[~known] = torch.nan
    expected = torch.zeros_like(rewards)
    expected[known] = oracles.grpo_advantages(rewards[known], ids[known], scale=scale)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(grpo_advantages(rewards, groups, scale=scale), expected)


@every_scale
def test_an_unscorable_rollout_leaves_all_gradients_finite(scale: str) -> None:
    rewards, ids = torch.tensor([torch.nan, 1.0, 0.0, torch.nan]), torch.tensor([0, 0, 0, 1])
    for groups in (ids, GroupLayout.from_ids(ids)):
        _, grad = gradients(lambda x, groups=groups: grpo_advantages(x, groups, scale=scale), rewards)
        assert grad.isfinite().all()
