"""Advantage estimators by the names that verl finds them under: the same numbers as verl's own."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from clipo_ops import gpg_advantages, maxrl_advantages, token_level_rewards
from clipo_train.adapters.verl.advantages import ESTIMATORS, group_ids

from ...ops import helpers
from ...parity.batches import Rollouts, rollouts

assert_same = partial(helpers.assert_same, rtol=1e-6, atol=1e-7)  # verl adds 1e-8 to denominators

PEERS: dict[str, list[dict[str, Any]]] = {
    "grpo": [{"norm_adv_by_std_in_grpo": True}, {"norm_adv_by_std_in_grpo": False}],
    "rloo": [{}],
    "opo": [{}],
    "remax": [{}],
    "reinforce_plus_plus": [{"gamma": 1.0}, {"gamma": 0.9}],
    "reinforce_plus_plus_baseline": [{}],
}


def uid(batch: Rollouts) -> np.ndarray:
    """Strings, in an array of objects."""
    return np.array([f"prompt-{g}" for g in batch.groups.tolist()], dtype=object)


def arguments(batch: Rollouts, **settings: Any) -> dict[str, Any]:
    return {
        "token_level_rewards": token_level_rewards(batch.rewards, batch.mask),
        "response_mask": batch.mask.long(),
        "index": uid(batch),
        "reward_baselines": batch.rewards.flip(0) / 2,
        "config": AlgoConfig(**settings),
    }


@pytest.mark.parametrize(("name", "settings"), [(name, each) for name, all_ in PEERS.items() for each in all_])
@given(batch=rollouts())
def test_is_the_same_as_verls(name: str, settings: dict[str, Any], batch: Rollouts) -> None:
    given = arguments(batch, **settings)
    peer = {**given, "response_mask": batch.mask.double()}
    if name == "grpo":  # which verl calls by other names than all others
        peer = {key: peer[key] for key in ("token_level_rewards", "response_mask", "index")} | settings
    mine, theirs = get_adv_estimator_fn(f"clipo_{name}")(**given), get_adv_estimator_fn(name)(**peer)
    for own, other in zip(mine, theirs, strict=True):
        assert_same(own, torch.where(batch.mask, other, 0))


@given(batch=rollouts())
def test_what_verl_has_not_or_has_otherwise_is_that_of_clipo_ops(batch: Rollouts) -> None:
    for name, function in (("clipo_maxrl", maxrl_advantages), ("clipo_gpg", gpg_advantages)):
        advantages, returns = get_adv_estimator_fn(name)(**arguments(batch))
        expected = torch.where(batch.mask, function(batch.rewards, batch.groups).unsqueeze(1), 0)
        assert_same((advantages, returns), (expected, expected))


@pytest.mark.parametrize("name", ESTIMATORS)
@given(batch=rollouts())
def test_verls_driver_calls_it(name: str, batch: Rollouts) -> None:
    given = arguments(batch)
    config = given.pop("config")
    fields = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    data = DataProto(batch=TensorDict(fields, len(batch.rewards)), non_tensor_batch={"uid": given["index"]})
    data = compute_advantage(data, adv_estimator=name, config=config)
    expected = get_adv_estimator_fn(name)(**given, config=config)
    assert_same((data.batch["advantages"], data.batch["returns"]), expected)


def test_a_single_rollout_gets_no_advantage_where_verls_keeps_its_reward() -> None:
    batch = Rollouts(torch.ones(3).double(), torch.tensor([7, 3, 3]), torch.ones(3, 1).bool())
    assert get_adv_estimator_fn("clipo_grpo")(**arguments(batch))[0].eq(0).all()


def test_ids_may_be_any_objects() -> None:
    assert group_ids(np.array(["b", "a", "b"], dtype=object)).tolist() == [1, 0, 1]
    assert group_ids(np.array([5, 5, 2])).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("name", "missing"), [("clipo_grpo", "uid"), ("clipo_remax", "reward_baselines")])
def test_what_verl_did_not_give_is_named(name: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"^{missing}: expected .*, got none$"):
        get_adv_estimator_fn(name)(torch.zeros(2, 1), torch.ones(2, 1), config=AlgoConfig())
