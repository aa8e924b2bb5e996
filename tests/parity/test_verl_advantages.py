"""verl's advantage estimators: the same numbers, and where verl's are wrong."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.utils.torch_functional import masked_whiten

from clipo_ops import (
    gae_advantages,
    gdpo_advantages,
    gpg_advantages,
    grpo_advantages,
    opo_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
    remax_advantages,
    rloo_advantages,
    token_level_rewards,
    whiten,
)

from ..ops import helpers
from ..ops.strategies import SEEDS, noise
from .batches import Rollouts, rollouts

assert_same = partial(helpers.assert_same, rtol=1e-6, atol=1e-7)  # verl adds 1e-8 to denominators


def theirs(name: str, rollouts: Rollouts, /, **arguments: Any) -> Tensor:
    """An estimator of verl's, on the reward at the last token; 0 under a False mask."""
    given = {"index": rollouts.groups.numpy(), **arguments}
    rewards, mask = token_level_rewards(rollouts.rewards, rollouts.mask), rollouts.mask
    advantages, _ = get_adv_estimator_fn(name)(
        token_level_rewards=rewards, response_mask=mask.to(rewards.dtype), **given
    )
    return torch.where(mask, advantages, 0)


def per_token(advantages: Tensor, batch: Rollouts) -> Tensor:
    return torch.where(batch.mask, advantages.unsqueeze(1), 0)


@pytest.mark.parametrize("scale", ["group", "none"])
@given(batch=rollouts())
def test_grpo(scale: str, batch: Rollouts) -> None:
    mine = per_token(grpo_advantages(batch.rewards, batch.groups, scale=scale), batch)
    assert_same(mine, theirs("grpo", batch, norm_adv_by_std_in_grpo=scale == "group"))
    vectorized = theirs("grpo_vectorized", batch, norm_adv_by_std_in_grpo=scale == "group")
    helpers.assert_same(mine.float(), vectorized.float(), rtol=1e-4, atol=1e-5)  # in float32


@given(batch=rollouts())
def test_rloo(batch: Rollouts) -> None:
    mine = per_token(rloo_advantages(batch.rewards, batch.groups), batch)
    assert_same(mine, theirs("rloo", batch))
    assert_same(mine, theirs("rloo_vectorized", batch))


@given(batch=rollouts())
def test_opo(batch: Rollouts) -> None:
    mine = opo_advantages(batch.rewards, batch.mask.sum(1), batch.groups)
    assert_same(per_token(mine, batch), theirs("opo", batch))


@given(batch=rollouts(), seed=SEEDS)
def test_remax(batch: Rollouts, seed: int) -> None:
    greedy = noise(seed, len(batch.rewards))
    mine = per_token(remax_advantages(batch.rewards, greedy), batch)
    assert_same(mine, theirs("remax", batch, reward_baselines=greedy))


@given(batch=rollouts(), discount=st.sampled_from([0.0, 0.9, 1.0]))
def test_reinforce_plus_plus(batch: Rollouts, discount: float) -> None:
    rewards = token_level_rewards(batch.rewards, batch.mask)
    mine = reinforce_plus_plus_advantages(rewards, batch.mask, discount=discount)
    assert_same(mine, theirs("reinforce_plus_plus", batch, config=AlgoConfig(gamma=discount)))


@given(batch=rollouts())
def test_reinforce_plus_plus_baseline(batch: Rollouts) -> None:
    mine = reinforce_plus_plus_baseline_advantages(batch.rewards, batch.mask, batch.groups)
    assert_same(mine, theirs("reinforce_plus_plus_baseline", batch))


@given(batch=rollouts(), seed=SEEDS, discount=st.sampled_from([0.5, 1.0]), decay=st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_steps_over_holes_and_is_whitened_by_verl(
    batch: Rollouts, seed: int, discount: float, decay: float
) -> None:
    rewards, values = noise(seed, *batch.mask.shape), noise(seed + 1, *batch.mask.shape)
    advantages, returns = get_adv_estimator_fn("gae")(rewards, values, batch.mask.double(), discount, decay)
    mine = gae_advantages(rewards, values, batch.mask, discount=discount, gae_lambda=decay)
    assert_same(whiten(mine.advantages, batch.mask), torch.where(batch.mask, advantages, 0))
    assert_same(mine.returns, torch.where(batch.mask, returns, 0))


@given(batch=rollouts(), shift_mean=st.booleans(), seed=SEEDS)
def test_whiten(batch: Rollouts, shift_mean: bool, seed: int) -> None:
    values = noise(seed, *batch.mask.shape)
    expected = masked_whiten(values, batch.mask.double(), shift_mean=shift_mean)
    assert_same(whiten(values, batch.mask, shift_mean=shift_mean), torch.where(batch.mask, expected, 0))


@given(batch=rollouts(), seed=SEEDS)
def test_gdpo_on_responses_of_one_token(batch: Rollouts, seed: int) -> None:
    """verl whitens over tokens, so that a long rollout counts more; the paper, and we, over rollouts."""
    one = batch._replace(mask=torch.ones(len(batch.rewards), 1, dtype=torch.bool))
    signals = torch.stack([batch.rewards, noise(seed, len(batch.rewards))], 1)
    advantages = theirs(
        "gdpo",
        one,
        config=AlgoConfig(gdpo_reward_keys=["a", "b"], gdpo_reward_weights=[1.0, 0.5]),
        non_tensor_batch={"a": signals[:, 0].numpy(), "b": signals[:, 1].numpy()},
        batch={"prompts": torch.zeros(len(signals), 1), "attention_mask": torch.ones(len(signals), 2).long()},
    )
    mine = gdpo_advantages(signals, batch.groups, weights=(1.0, 0.5))
    helpers.assert_same(mine.float(), advantages.squeeze(1).float(), rtol=1e-4, atol=1e-4)


# --- where verl's numbers are wrong


def of(rewards: list[float], groups: list[int], dtype: torch.dtype = torch.float64) -> Rollouts:
    return Rollouts(torch.tensor(rewards, dtype=dtype), torch.tensor(groups), torch.ones(len(rewards), 1).bool())


def test_a_single_rollout_keeps_its_raw_reward_in_verl() -> None:
    """Also next to a group that has a baseline; `rloo_vectorized` alone gives 0."""
    batch = of([1.0, 1.0, 0.0], [7, 3, 3])
    for name in ("grpo", "grpo_vectorized", "rloo", "opo"):
        assert_same(theirs(name, batch)[0].double(), torch.ones(1, dtype=torch.float64))
    assert_same(theirs("rloo_vectorized", batch)[0], torch.zeros(1, dtype=torch.float64))
    for mine in (
        grpo_advantages(batch.rewards, batch.groups),
        rloo_advantages(batch.rewards, batch.groups),
        opo_advantages(batch.rewards, batch.mask.sum(1), batch.groups),
    ):
        assert mine[0] == 0


def test_a_constant_group_has_an_advantage_in_verl() -> None:
    """Up to .19: rounding, divided by 1e-6."""
    constants = torch.linspace(0.1, 4.0, 40).repeat_interleave(7)
    batch = Rollouts(constants, torch.arange(280) // 7, torch.ones(280, 1).bool())
    assert 0.1 < theirs("grpo", batch).abs().max() < 0.2
    assert grpo_advantages(constants, batch.groups).count_nonzero() == 0


def test_a_reward_of_nan_takes_its_group_along_in_verl() -> None:
    batch = of([torch.nan, 1.0, 0.0], [0, 0, 0])
    assert theirs("grpo", batch).isnan().all()
    assert_same(grpo_advantages(batch.rewards, batch.groups, scale="none"), torch.tensor([0.0, 0.5, -0.5]).double())


def test_gpg_counts_rewards_where_it_means_groups_in_verl() -> None:
    """Alpha makes up for groups without a gradient: here 1 of 2. verl counts rewards that are not 0: 3 of 4."""
    batch = of([1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1])
    assert_same(theirs("gpg", batch), torch.tensor([[2 / 3], [-2 / 3], [0.0], [0.0]]).double())
    mine = gpg_advantages(batch.rewards, batch.groups)
    assert_same(mine, torch.tensor([1.0, -1.0, 0.0, 0.0]).double())
    shifted = of([0.0, -1.0, 0.0, 0.0], [0, 0, 1, 1])  # less 1: nothing should change
    assert_same(theirs("gpg", shifted)[:2], torch.tensor([[2.0], [-2.0]]).double())
    assert_same(gpg_advantages(shifted.rewards, batch.groups), mine)


@given(batch=rollouts())
def test_gpg_is_the_same_but_for_alpha(batch: Rollouts) -> None:
    alpha = len(batch.rewards) / np.count_nonzero(batch.rewards)
    mine = grpo_advantages(batch.rewards, batch.groups, scale="none") * alpha
    assert_same(per_token(mine, batch), theirs("gpg", batch))
