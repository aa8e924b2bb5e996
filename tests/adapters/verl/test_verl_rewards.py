"""The driver's part by itself: who is correct, who takes part, and what each gets."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clipo_ops import GroupLayout
from clipo_train.adapters.verl.rewards import VerlConfig, contrastive_rewards, read_config, successes
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

from .conftest import nested


def pooled_batch() -> tuple[dict[str, Any], Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    keys = [f"{uid}_{i}_0" for uid in "ab" for i in range(4)]
    data = {
        "uid": np.array([key[0] for key in keys], dtype=object),
        "pooled_hidden": nested(list(torch.randn(8, 16, generator=generator))),
        "extra_fields": np.array([{"reward_extra_info": {"acc": i % 4 < 2}} for i in range(8)], dtype=object),
    }
    return data, torch.ones(8).bool(), keys


def test_filled_up_rows_change_nothing_for_the_others() -> None:
    data, real, keys = pooled_batch()
    config = VerlConfig(dim=8, objective="supcon_out", success="acc")
    success = successes(data, torch.zeros(8), real, config)
    assert success.tolist() == [True, True, False, False] * 2
    rewards = contrastive_rewards(ClipoHead(16, config, device="cpu"), data, success, real, keys)
    fewer = torch.tensor([True] * 4 + [False] * 4)
    some = contrastive_rewards(ClipoHead(16, config, device="cpu"), data, success, fewer, keys)
    torch.testing.assert_close(some, torch.where(fewer, rewards, 0))
    layout = GroupLayout.from_ids(torch.arange(8) // 4)
    alone = ClipoHead(16, config, device="cpu").step(torch.stack(list(data["pooled_hidden"].unbind())), success, layout)
    torch.testing.assert_close(rewards, alone)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"success": "acc"}, [True, False, False]),
        ({"success": "acc", "success_threshold": 0.1}, [True, True, False]),
        ({"success_threshold": 0.5}, [False, True, False]),
        ({"success": "colocated"}, [False, True, False]),
    ],
)
def test_success_is_a_value_of_the_reward_functions_or_the_score(settings: Any, expected: list[bool]) -> None:
    extra = [{"reward_extra_info": {"acc": value}} for value in (True, 0.25)] + [{}]
    data = {"extra_fields": extra, "colocated": np.array([0.0, 1.0, 1.0])}
    real = torch.tensor([True, True, False])
    assert successes(data, torch.tensor([0.4, 0.9, 9.0]), real, VerlConfig(**settings)).tolist() == expected


def test_errors_take_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^trainer.v1.clipo.success: expected who is correct, .*=acc\).*neither$"):
        read_config({})
    with pytest.raises(ConfigError, match=r"^trainer.v1.clipo.temperature: expected greater than 0, got -1$"):
        read_config({"success": "acc", "temperature": -1})
    with pytest.raises(ConfigError, match=r"^trainer.v1.clipo.sucess: expected a field of the configuration"):
        read_config({"sucess": "acc"})
    data, real, keys = pooled_batch()
    config = VerlConfig(dim=8, success="accuracy")
    with pytest.raises(ConfigError, match=r"^trainer.v1.clipo.success: expected one of \['acc'\].* got 'accuracy'$"):
        successes(data, torch.zeros(8), real, config)
    head = ClipoHead(16, config, device="cpu")
    with pytest.raises(ConfigError, match=r"^trainer.v1.clipo: expected agent loops of one output per session"):
        contrastive_rewards(head, data, real, real, ["a_0_0", "a_0_1", *keys[2:]])
    with pytest.raises(ConfigError, match=r"^pooled_hidden: expected it in the engine's output, got none"):
        contrastive_rewards(head, {"uid": data["uid"]}, real, real, keys)
