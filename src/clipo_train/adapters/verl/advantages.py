"""`algorithm.adv_estimator=clipo_...`: the estimators of `clipo_ops` under verl's signature."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from clipo_ops import (
    gae_advantages,
    gpg_advantages,
    grpo_advantages,
    maxrl_advantages,
    opo_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
    remax_advantages,
    rloo_advantages,
)


class Scores(NamedTuple):
    """A batch as verl gives it to an estimator.

    Attributes:
        token_rewards: `token_level_rewards`.
        mask: `response_mask`.
        uid: Of the prompt, any objects; None where verl gives none.
        config: The section `algorithm`.
        baselines: `reward_baselines`, of greedy answers; None where verl gives none.
    """

    token_rewards: Float[Tensor, "rollouts tokens"]
    mask: Bool[Tensor, "rollouts tokens"]
    uid: np.ndarray | None
    config: Any
    baselines: Float[Tensor, " rollouts"] | None

    @property
    def rewards(self) -> Float[Tensor, " rollouts"]:
        """One per rollout; as in verl, whatever stands under a False mask counts."""
        return self.token_rewards.sum(1)

    @property
    def groups(self) -> Int[Tensor, " rollouts"]:
        """Ids for `clipo_ops`."""
        if self.uid is None:
            raise ValueError("uid: expected the prompt of each rollout, got none")
        return group_ids(self.uid).to(self.mask.device)


Estimator: TypeAlias = Callable[[Scores], Tensor]


def group_ids(uid: np.ndarray) -> Int[Tensor, " rollouts"]:
    """The objects of verl's `uid` as numbers."""
    return torch.from_numpy(np.unique(uid, return_inverse=True)[1].reshape(-1))


def _grpo(batch: Scores) -> Tensor:
    scale: Any = "group" if batch.config is None or batch.config.get("norm_adv_by_std_in_grpo", True) else "none"
    return grpo_advantages(batch.rewards, batch.groups, scale=scale)


def _remax(batch: Scores) -> Tensor:
    if batch.baselines is None:
        raise ValueError("reward_baselines: expected the reward of each prompt's greedy answer, got none")
    return remax_advantages(batch.rewards, batch.baselines)


ESTIMATORS: dict[str, Estimator] = {
    "clipo_grpo": _grpo,
    "clipo_rloo": lambda batch: rloo_advantages(batch.rewards, batch.groups),
    "clipo_opo": lambda batch: opo_advantages(batch.rewards, batch.mask.sum(1), batch.groups),
    "clipo_maxrl": lambda batch: maxrl_advantages(batch.rewards, batch.groups),
    "clipo_gpg": lambda batch: gpg_advantages(batch.rewards, batch.groups),
    "clipo_remax": _remax,
    "clipo_reinforce_plus_plus": lambda batch: reinforce_plus_plus_advantages(
        batch.token_rewards, batch.mask, discount=batch.config.gamma
    ),
    "clipo_reinforce_plus_plus_baseline": lambda batch: reinforce_plus_plus_baseline_advantages(
        batch.rewards, batch.mask, batch.groups
    ),
}
"""Advantages per rollout or per token, by the name they are registered under."""

RETURNS_OF_TOKENS = {"clipo_remax", "clipo_reinforce_plus_plus"}
"""Estimators whose returns are sums of rewards from a token on, in verl; the others return the advantages twice."""


def _registered(name: str, estimator: Estimator) -> Callable[..., tuple[Tensor, Tensor]]:
    @torch.no_grad()
    def advantages(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: np.ndarray | None = None,
        config: Any = None,
        reward_baselines: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        batch = Scores(token_level_rewards, response_mask.bool(), index, config, reward_baselines)
        values = estimator(batch)
        values = torch.where(batch.mask, values.unsqueeze(1) if values.ndim == 1 else values, 0)
        return values, _returns(batch, name) if name in RETURNS_OF_TOKENS else values

    return advantages


def _returns(batch: Scores, name: str) -> Tensor:
    """Sums of rewards from each token on: those of generalised advantage estimation without a critic."""
    discount = 1.0 if name == "clipo_remax" else batch.config.gamma
    nothing = torch.zeros_like(batch.token_rewards)
    return gae_advantages(batch.token_rewards, nothing, batch.mask, discount=discount, gae_lambda=1.0).returns


for _name, _estimator in ESTIMATORS.items():
    register_adv_est(_name)(_registered(_name, _estimator))
