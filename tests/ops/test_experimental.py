"""A reward for being like the other correct rollouts: who gets what, and what it must not depend on."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout
from clipo_ops.experimental import consensus_reward

from . import oracles
from .helpers import HALF, assert_same
from .strategies import SEEDS, Batch, batches, noise


class Steps(NamedTuple):
    states: Tensor
    success: Tensor
    ids: Tensor


@st.composite
def stepwise(draw: st.DrawFn) -> Steps:
    """One to three steps a rollout; some rollouts lack some of them, some are equal."""
    batch: Batch = draw(batches())
    steps = draw(st.integers(1, 3))
    states = noise(draw(SEEDS), len(batch.ids), steps, 4)
    lacking = torch.tensor(draw(st.lists(st.booleans(), min_size=len(states) * steps, max_size=len(states) * steps)))
    states = torch.where(lacking.view(len(states), steps, 1), 0, states)
    states[-1] = states[0]
    return Steps(states, batch.success, batch.ids)


OPTIONS = st.sampled_from([{}, {"weight": 2.0}, {"bandwidth": 0.3}, {"gate": 0.5}])


@given(stepwise(), OPTIONS)
def test_it_agrees_with_the_oracle(batch: Steps, options: dict[str, float]) -> None:
    expected = oracles.consensus_reward(*batch, **options)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(consensus_reward(batch.states, batch.success, groups, **options), expected)


@given(stepwise(), OPTIONS)
def test_it_is_between_minus_the_weight_and_0_and_the_best_and_the_wrong_lose_nothing(
    batch: Steps, options: dict[str, float]
) -> None:
    rewards = consensus_reward(*batch, **options)
    assert bool((rewards <= 0).all())
    assert bool((rewards >= -options.get("weight", 0.5)).all())
    assert not rewards[~batch.success].any()
    for group in batch.ids.unique():
        right = batch.success & (batch.ids == group)
        assert not right.any() or rewards[right].max() == 0
        assert right.sum() > 2 or not rewards[right].any()  # of two, neither is the outlier


@given(stepwise(), SEEDS, st.sampled_from([1e-3, 7.0]))
def test_neither_the_order_nor_the_length_of_states_matters(batch: Steps, seed: int, factor: float) -> None:
    order = torch.randperm(len(batch.ids), generator=torch.Generator().manual_seed(seed))
    rewards = consensus_reward(*(values[order] for values in batch))
    assert_same(rewards, consensus_reward(*batch)[order])
    assert_same(consensus_reward(batch.states * factor, batch.success, batch.ids), consensus_reward(*batch))


@given(stepwise())
def test_wrong_rollouts_have_no_say(batch: Steps) -> None:
    other = torch.where(batch.success.view(-1, 1, 1), batch.states, noise(1, *batch.states.shape))
    assert_same(consensus_reward(other, batch.success, batch.ids), consensus_reward(*batch))


@pytest.mark.parametrize("apart", [1.0, 1e-2])
@pytest.mark.parametrize("size", [3, 5, 16])
def test_one_outlier_loses_nearly_all_and_the_others_nothing_however_near_it_is(size: int, apart: float) -> None:
    states = torch.zeros(size, 1, 3)
    states[:, 0, 0] = 1
    states[0, 0, 1] = apart
    rewards = consensus_reward(states, torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.long))
    assert rewards[1:].tolist() == [0.0] * (size - 1)
    assert rewards[0] < -0.1 if size == 3 else rewards[0] < -0.3


def test_rounding_makes_no_outlier() -> None:
    states = torch.ones(8, 1, 64) + 1e-7 * noise(0, 8, 1, 64).float()
    rewards = consensus_reward(states, torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.long))
    assert rewards.abs().max() < 0.02


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    states, success, ids = noise(3, 8, 2, 16).to(dtype), torch.ones(8, dtype=torch.bool), torch.arange(8) // 4
    rewards = consensus_reward(states, success, ids)
    assert rewards.dtype == dtype
    torch.testing.assert_close(rewards, consensus_reward(states.double(), success, ids).to(dtype), rtol=1e-2, atol=1e-4)


def test_it_has_no_gradient() -> None:
    states = noise(0, 4, 1, 3).requires_grad_()
    assert not consensus_reward(states, torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.long)).requires_grad
