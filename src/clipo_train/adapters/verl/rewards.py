"""The contrastive reward on verl's driver: who is correct, who belongs together, and what each gets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from clipo_train.adapters.verl.advantages import group_ids
from clipo_train.adapters.verl.engine import POOLED
from clipo_train.config import ClipoConfig
from clipo_train.config.fields import STRICT, Natural
from clipo_train.config.files import read_section
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

SECTION = "trainer.v1.clipo"


@dataclass(frozen=True, config=STRICT)
class VerlConfig(ClipoConfig):
    """The section `trainer.v1.clipo` of verl's configuration: `ClipoConfig`'s fields, and who is correct."""

    success: str | None = None
    """What the reward function calls a correct rollout, among what it returns beside the score, such as `acc`."""
    success_threshold: float | None = None
    """A rollout is correct if that value, or its score where `success` is not given, is above this; .5 if only
    `success` is given."""
    seed: Natural = 0
    """Of the head's weights and draws."""


def read_config(values: Any) -> VerlConfig:
    """The section, with one line for what is wrong with it.

    Raises:
        ConfigError: An unknown field, a value of a wrong type or out of range, no word on who is correct.
    """
    config = read_section(VerlConfig, values, SECTION)
    if config.enabled and config.success is None and config.success_threshold is None:
        raise ConfigError(
            f"{SECTION}.success: expected who is correct, by a value of the reward function's (+{SECTION}.success=acc) "
            f"or by the score (+{SECTION}.success_threshold=0.5), got neither"
        )
    return config


def successes(
    data: Mapping[str, Any], scores: Float[Tensor, " rollouts"], real: Bool[Tensor, " rollouts"], config: VerlConfig
) -> Bool[Tensor, " rollouts"]:
    """Who is correct.

    Args:
        data: `extra_fields` of each rollout, or the value itself where a colocated reward model gave it.
        scores: The score of each.
        real: False for what verl fills up a batch with, which is never correct.
        config: The section.

    Raises:
        ConfigError: The reward function returns no such value.
    """
    values = scores if config.success is None else _named(data, real, config.success)
    threshold = 0.5 if config.success_threshold is None else config.success_threshold
    return (values > threshold) & real


def _named(data: Mapping[str, Any], real: Tensor, name: str) -> Tensor:
    if name in data.keys():  # noqa: SIM118 - a TensorDict
        values = data[name]
        return values.float() if isinstance(values, Tensor) else torch.tensor(list(values), dtype=torch.float32)
    extra = [_extra(fields) for fields in _listed(data["extra_fields"])]
    for fields, counts in zip(extra, real.tolist(), strict=True):
        if counts and name not in fields:
            raise ConfigError(
                f"{SECTION}.success: expected one of {sorted(fields)}, which the reward gives, got {name!r}"
            )
    return torch.tensor([float(fields.get(name, 0.0)) for fields in extra])


def _extra(fields: Any) -> dict[str, Any]:
    return fields.get("reward_extra_info", {}) if isinstance(fields, dict) else {}


def _listed(values: Any) -> list[Any]:
    """Objects of a TensorDict, one per rollout."""
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)


def contrastive_rewards(
    head: ClipoHead,
    data: Mapping[str, Any],
    success: Bool[Tensor, " rollouts"],
    real: Bool[Tensor, " rollouts"],
    keys: Sequence[str],
) -> Float[Tensor, " rollouts"]:
    """One step of the head on the rollouts of all workers.

    Args:
        head: The head.
        data: `uid` and `pooled_hidden` of each rollout.
        success: Who is correct.
        real: False for what verl fills up a batch with; it takes no part, and gets 0.
        keys: verl's names of the rollouts, `{uid}_{session}_{output}`.

    Raises:
        ConfigError: There are no hidden states, or several outputs of one session: which of them stands for it?
    """
    if POOLED not in data.keys():  # noqa: SIM118 - a TensorDict
        raise ConfigError(f"{POOLED}: expected it in the engine's output, got none; is another engine registered?")
    sessions = [key.rsplit("_", 1)[0] for key in keys]
    if len(set(sessions)) < len(sessions):
        raise ConfigError(f"{SECTION}: expected agent loops of one output per session, got several")
    pooled = torch.stack(list(data[POOLED].unbind()))
    groups = group_ids(np.array(_listed(data["uid"]), dtype=object))
    rewards = torch.zeros(len(real))
    rewards[real] = head.step(pooled[real], success[real], groups[real])
    return rewards
