"""The algorithm as the trainer composes it: rewards to advantages, log-probabilities to a loss."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    Surrogate,
    aggregate,
    cispo_surrogate,
    clipped_surrogate,
    geometric_mean_surrogate,
    gpg_advantages,
    grpo_advantages,
    gspo_token_log_ratio,
    kl_estimate,
    log_ratio,
    masked_importance_weights,
    maxrl_advantages,
    opo_advantages,
    policy_gradient_surrogate,
    rloo_advantages,
    sapo_surrogate,
    truncated_importance_weights,
)
from clipo_train.config import LossConfig
from clipo_train.head import ClipoHead
from clipo_train.rollout import Rollouts


class Credit(NamedTuple):
    """What every rollout gets; one number per rollout each."""

    outcome: Float[Tensor, " rollouts"]
    contrastive: Float[Tensor, " rollouts"]
    advantages: Float[Tensor, " rollouts"]


def assign_credit(
    rollouts: Rollouts, pooled: Float[Tensor, "rollouts hidden"] | None, head: ClipoHead | None, config: LossConfig
) -> Credit:
    """Outcome plus contrastive rewards, as advantages over their group. Takes one step of the head."""
    outcome, groups = rollouts.outcome, rollouts.groups
    contrastive = torch.zeros_like(outcome)
    if head is not None and pooled is not None:
        contrastive = head.step(pooled, rollouts.success, groups)
    lengths = rollouts.generation.response_mask.sum(1)
    return Credit(outcome, contrastive, _advantages(outcome + contrastive, lengths, groups, config))


def _advantages(rewards: Tensor, lengths: Tensor, groups: GroupLayout, config: LossConfig) -> Tensor:
    match config.advantages:
        case "grpo":
            return grpo_advantages(rewards, groups, scale=config.advantage_scale, eps=config.advantage_eps)
        case "rloo":
            return rloo_advantages(rewards, groups)
        case "opo":
            return opo_advantages(rewards, lengths, groups)
        case "maxrl":
            return maxrl_advantages(rewards, groups, eps=config.advantage_eps)
        case "gpg":
            return gpg_advantages(rewards, groups)


class PolicyLoss(NamedTuple):
    """Scalars that add up over the micro-batches of a mini-batch; only the first has a gradient."""

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]


def policy_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    ref_logprobs: Float[Tensor, "rollouts tokens"] | None,
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    config: LossConfig,
    *,
    denominator: Float[Tensor, ""],
    tokens: Float[Tensor, ""],
    rollout_logprobs: Float[Tensor, "rollouts tokens"] | None = None,
) -> PolicyLoss:
    """The surrogate, plus a weighted KL to the reference policy if there is one.

    Args:
        logprobs: Under the policy being updated.
        old_logprobs: Under the policy that sampled.
        ref_logprobs: Under the reference policy, or None.
        advantages: One per rollout.
        mask: True at response tokens.
        config: The algorithm.
        denominator: Of the loss, counted over the mini-batch; see `clipo_ops.aggregate_denominator`.
        tokens: Response tokens in the mini-batch.
        rollout_logprobs: Under the policy that sampled as its engine has them, or None where the two are the same.
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    surrogate = _surrogate(logprobs, ratio, advantages, mask, config)
    per_token = surrogate.loss
    if rollout_logprobs is not None and config.rollout_correction != "none":
        per_token = per_token * _mismatch_weights(old_logprobs, rollout_logprobs, mask, config)
    if ref_logprobs is not None:
        per_token = per_token + config.kl_weight * kl_estimate(logprobs, ref_logprobs, estimator=config.kl_estimator)
    # The policy that sampled is the one the estimate's samples come from.
    moved = kl_estimate(torch.zeros_like(ratio), ratio.detach())
    return PolicyLoss(
        aggregate(per_token, mask, mode=config.aggregation, denominator=denominator),
        aggregate(surrogate.clipped.float(), mask, denominator=tokens),
        aggregate(moved, mask, denominator=tokens),
    )


def _surrogate(
    logprobs: Tensor, token_log_ratio: Tensor, advantages: Tensor, mask: Tensor, config: LossConfig
) -> Surrogate:
    ratio = gspo_token_log_ratio(token_log_ratio, mask) if config.importance == "sequence" else token_log_ratio
    match config.surrogate:
        case "clipped":
            return clipped_surrogate(
                ratio,
                advantages,
                epsilon_low=config.epsilon_low,
                epsilon_high=config.epsilon_high,
                dual_clip=config.dual_clip,
            )
        case "policy_gradient":
            return policy_gradient_surrogate(logprobs, advantages)
        case "cispo":
            return cispo_surrogate(logprobs, ratio, advantages)
        case "sapo":
            return sapo_surrogate(ratio, advantages)
        case "gmpo":
            return geometric_mean_surrogate(token_log_ratio, advantages, mask)


def _mismatch_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, config: LossConfig) -> Tensor:
    """Importance weights from the engine that sampled to the trainer's policy."""
    if config.rollout_correction == "truncated":
        return truncated_importance_weights(
            old_logprobs, rollout_logprobs, mask, cap=config.rollout_high, level=config.rollout_level
        )
    return masked_importance_weights(
        old_logprobs,
        rollout_logprobs,
        mask,
        low=config.rollout_low,
        high=config.rollout_high,
        level=config.rollout_level,
    )
