"""`actor_rollout_ref.actor.policy_loss.loss_mode=clipo_...`: the surrogates of `clipo_ops` under verl's signature.

Their bounds are verl's own fields of `actor`, so that a name is all that changes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from verl.trainer.ppo.core_algos import register_policy_loss

from clipo_ops import (
    Surrogate,
    aggregate,
    aggregate_denominator,
    cispo_surrogate,
    clip_cov_surrogate,
    clip_fraction,
    clipped_surrogate,
    dppo_surrogate,
    geometric_mean_surrogate,
    gspo_token_log_ratio,
    kl_cov_surrogate,
    log_ratio,
    policy_gradient_surrogate,
    sapo_surrogate,
    sequence_log_ratio,
    vespo_surrogate,
)


class Tokens(NamedTuple):
    """A micro-batch as verl gives it to a policy loss; `config` is the section `actor`."""

    logprobs: Float[Tensor, "rollouts tokens"]
    log_ratio: Float[Tensor, "rollouts tokens"]
    advantages: Float[Tensor, "rollouts tokens"]
    mask: Bool[Tensor, "rollouts tokens"]
    config: Any


Loss: TypeAlias = Callable[[Tokens], Surrogate]
PolicyLoss: TypeAlias = Callable[..., tuple[Tensor, dict[str, float]]]


def _low(config: Any) -> float:
    return float(config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low)


def _high(config: Any) -> float:
    return float(config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high)


def _clipped(batch: Tokens) -> Surrogate:
    config = batch.config
    return clipped_surrogate(
        batch.log_ratio,
        batch.advantages,
        epsilon_low=_low(config),
        epsilon_high=_high(config),
        dual_clip=config.get("clip_ratio_c", 3.0),
    )


def _gspo(batch: Tokens) -> Surrogate:
    ratio = gspo_token_log_ratio(batch.log_ratio, batch.mask)
    low, high = _low(batch.config), _high(batch.config)
    return clipped_surrogate(ratio, batch.advantages, epsilon_low=low, epsilon_high=high)


def _gmpo(batch: Tokens) -> Surrogate:
    tokens = batch.mask.sum(1).clamp(min=1)
    advantages = torch.where(batch.mask, batch.advantages, 0).sum(1) / tokens
    low, high = _low(batch.config), _high(batch.config)
    return geometric_mean_surrogate(batch.log_ratio, advantages, batch.mask, clip_low=low, clip_high=high)


def _cispo(batch: Tokens) -> Surrogate:
    low, high = max(1 - _low(batch.config), 0.0), 1 + _high(batch.config)  # above 1 there is no lower bound
    return cispo_surrogate(batch.logprobs, batch.log_ratio, batch.advantages, ratio_low=low, ratio_high=high)


def _sapo(batch: Tokens) -> Surrogate:
    positive, negative = batch.config.tau_pos, batch.config.tau_neg
    return sapo_surrogate(
        batch.log_ratio, batch.advantages, temperature_positive=positive, temperature_negative=negative
    )


def _dppo(divergence: Any) -> Loss:
    def loss(batch: Tokens) -> Surrogate:
        return dppo_surrogate(
            batch.logprobs,
            batch.log_ratio,
            batch.advantages,
            divergence=divergence,
            threshold_low=_low(batch.config),
            threshold_high=_high(batch.config),
            ratio_high=batch.config.get("clip_ratio_c", 20.0),
        )

    return loss


def _clip_cov(batch: Tokens) -> Surrogate:
    settings = batch.config.policy_loss
    return clip_cov_surrogate(
        *batch[:4],
        fraction=settings.clip_cov_ratio,
        covariance_low=settings.clip_cov_lb,
        covariance_high=settings.clip_cov_ub,
        epsilon_low=_low(batch.config),
        epsilon_high=_high(batch.config),
    )


def _kl_cov(batch: Tokens) -> Surrogate:
    settings = batch.config.policy_loss
    return kl_cov_surrogate(*batch[:4], fraction=settings.kl_cov_ratio, kl_weight=settings.ppo_kl_coef)


LOSSES: dict[str, Loss] = {
    "clipo_clipped": _clipped,
    "clipo_gspo": _gspo,
    "clipo_gmpo": _gmpo,
    "clipo_cispo": _cispo,
    "clipo_sapo": _sapo,
    "clipo_dppo_tv": _dppo("tv"),
    "clipo_dppo_kl": _dppo("kl"),
    "clipo_clip_cov": _clip_cov,
    "clipo_kl_cov": _kl_cov,
    "clipo_vespo": lambda batch: vespo_surrogate(*batch[:4]),
    "clipo_policy_gradient": lambda batch: policy_gradient_surrogate(batch.logprobs, batch.advantages),
}
"""Surrogates per token, by the name they are registered under."""

MEANS_OF_ROLLOUTS = {"clipo_gmpo", "clipo_sapo"}
"""Losses that verl reduces by `seq-mean-token-mean`, as their papers do, whatever `loss_agg_mode` says."""


def _registered(name: str, loss: Loss) -> PolicyLoss:
    def policy_loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        mask = response_mask.bool()
        ratio = log_ratio(log_prob, old_log_prob, mask)
        surrogate = loss(Tokens(log_prob, ratio, advantages, mask, config))
        values = surrogate.loss
        if rollout_is_weights is not None:
            values = values * (_of_rollouts(rollout_is_weights, mask) if name == "clipo_gmpo" else rollout_is_weights)
        mode = "seq-mean-token-mean" if name in MEANS_OF_ROLLOUTS else loss_agg_mode
        metrics = {
            "actor/pg_clipfrac": clip_fraction(surrogate.clipped, mask).item(),
            "actor/ppo_kl": aggregate(-ratio.detach(), mask).item(),
        }
        return reduce(values, mask, mode, config.global_batch_info), metrics

    return policy_loss


def _of_rollouts(weights: Tensor, mask: Tensor) -> Tensor:
    """Geometric means of the weights: GMPO has one ratio per rollout, and so one weight."""
    return sequence_log_ratio((weights + 1e-10).log(), mask).exp().unsqueeze(1)


def reduce(values: Tensor, mask: Tensor, mode: Any, info: Mapping[str, Any]) -> Float[Tensor, ""]:
    """As verl's `agg_loss`, by `clipo_ops.aggregate`: this rank's part of a mean over the mini-batch of all ranks.

    verl averages gradients over ranks, so a rank divides by its share of what the whole mini-batch holds.

    Args:
        values: Per token.
        mask: True where a token counts.
        mode: verl's `loss_agg_mode`.
        info: verl's `global_batch_info`: `dp_size`, `batch_num_tokens`, `global_batch_size`, `loss_scale_factor`;
            what is missing is counted here, which is right on one rank with one micro-batch.

    Raises:
        ValueError: An unknown mode; several ranks, and nothing said of the whole mini-batch.
    """
    ranks = info.get("dp_size", 1)
    name = "batch_num_tokens" if mode in ("token-mean", "token-sum") else "global_batch_size"
    whole = 1 if mode == "token-sum" else info.get(name)
    if whole is None and ranks > 1:
        raise ValueError(f"global_batch_info.{name}: expected that of all {ranks} ranks, got none")
    if whole is None:
        whole = aggregate_denominator(mask, mode="token-mean" if mode == "token-mean" else "seq-mean-token-sum")
    if mode == "seq-mean-token-sum-norm":
        whole = whole * (info.get("loss_scale_factor") or mask.shape[1])
    share = torch.as_tensor(whole, dtype=torch.float32, device=mask.device) / ranks
    return aggregate(values, mask, mode="token-mean" if mode == "token-sum" else mode, denominator=share)


for _name, _loss in LOSSES.items():
    register_policy_loss(_name)(_registered(_name, _loss))
