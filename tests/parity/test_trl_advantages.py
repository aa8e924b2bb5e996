"""TRL's advantages, importance weights and masks, from its own trainer."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl.rewards import get_soft_overlong_punishment

from clipo_ops import (
    combine_rewards,
    gdpo_advantages,
    grpo_advantages,
    overlong_penalty,
)

from ..ops import helpers
from ..ops.strategies import SEEDS, noise
from .batches import rewards
from .trl_stub import generated

assert_same = partial(helpers.assert_same, rtol=1e-6)  # TRL's n / (n - 1) is of float32


def theirs(values: Tensor, size: int, scale: str = "group") -> Tensor:
    return generated(values.unsqueeze(1), num_generations=size, scale_rewards=scale)["advantages"]


def ids(values: Tensor, size: int) -> Tensor:
    return torch.arange(len(values)) // size


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@given(batch=rewards())
def test_group_advantages_are_the_same(scale: str, batch: tuple[Tensor, int]) -> None:
    values, size = batch
    assert_same(grpo_advantages(values, ids(*batch), scale=scale, eps=1e-4), theirs(values, size, scale))


@given(batch=rewards(), row=st.integers(0, 1))
def test_a_reward_of_nan_is_left_out_by_both(batch: tuple[Tensor, int], row: int) -> None:
    values, size = batch[0].clone(), batch[1]
    values[row] = torch.nan
    assert_same(grpo_advantages(values, ids(*batch), scale="none"), theirs(values, size, "none"))


@given(batch=rewards(), seed=SEEDS)
def test_normalize_then_sum_is_gdpo(batch: tuple[Tensor, int], seed: int) -> None:
    first, size = batch
    signals, weights = torch.stack([first, noise(seed, len(first))], 1), torch.tensor([1.0, 0.5])
    options = {"num_generations": size, "reward_weights": weights}
    result = generated(signals, multi_objective_aggregation="normalize_then_sum", **options)["advantages"]
    assert_same(gdpo_advantages(signals, ids(*batch), weights=(1.0, 0.5), eps=1e-4), result)
    summed = combine_rewards(signals, ids(*batch), weights=(1.0, 0.5))
    result = generated(signals, **options)["advantages"]
    assert_same(grpo_advantages(summed, ids(*batch), eps=1e-4), result)


@given(lengths=st.lists(st.integers(0, 40), min_size=1), buffer=st.integers(1, 20))
def test_the_overlong_penalty_is_the_same(lengths: list[int], buffer: int) -> None:
    penalty = get_soft_overlong_punishment(max_completion_len=20, soft_punish_cache=buffer)
    expected = torch.tensor(penalty(completion_ids=[[1] * length for length in lengths]), dtype=torch.float)
    assert_same(overlong_penalty(torch.tensor(lengths), max_length=20, buffer=buffer), expected)


# --- where TRL's numbers break


def test_a_constant_group_has_an_advantage_in_trl() -> None:
    """Up to .0024: rounding, divided by 1e-4."""
    constants = torch.linspace(0.1, 4.0, 40).repeat_interleave(7)
    rounding = theirs(constants, 7)
    assert 0.001 < rounding.abs().max() < 0.0025
    assert grpo_advantages(constants, ids(constants, 7)).count_nonzero() == 0


def test_small_rewards_have_a_third_of_their_advantage_in_trl() -> None:
    values = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert_same(theirs(values * 1e-4, 4), torch.tensor([0.5, -1 / 6, -1 / 6, -1 / 6], dtype=torch.float64))
    exact = torch.tensor([1.5, -0.5, -0.5, -0.5], dtype=torch.float64)
    assert_same(grpo_advantages(values * 1e-4, ids(values, 4), eps=0), exact)
    assert_same(grpo_advantages(values * 1e-4, ids(values, 4)), exact / 1.02)


def test_trl_takes_any_rows_in_order_for_a_group() -> None:
    """Two prompts whose rollouts are interleaved, each constant: no advantage, but the same mixed groups for TRL."""
    values, groups = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0, 1, 0, 1])
    assert_same(theirs(values, 2, "none"), torch.tensor([0.5, -0.5, 0.5, -0.5]))
    assert grpo_advantages(values, groups).count_nonzero() == 0
