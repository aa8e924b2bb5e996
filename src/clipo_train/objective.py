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
    dppo_surrogate,
    geometric_mean_surrogate,
    gpg_advantages,
    grpo_advantages,
    gspo_token_log_ratio,
    kl_estimate,
    log_ratio,
    masked_importance_weights,
    maxrl_advantages,
    opo_advantages,
    overlong_penalty,
    policy_gradient_surrogate,
    rloo_advantages,
    sapo_surrogate,
    truncated_importance_weights,
    unbiased_kl_estimate,
    vespo_surrogate,
)
from clipo_train.config import LossConfig, TrainConfig
from clipo_train.rollout import Rollouts


class Credit(NamedTuple):
    """What every rollout gets; one number per rollout each.

    Attributes:
        outcome: The verifier's reward.
        contrastive: The head's.
        overlong: The penalty for a long response, at most 0.
        kl: The penalty for leaving the reference policy.
        total: The sum of these.
        advantages: From the total.
    """

    outcome: Float[Tensor, " rollouts"]
    contrastive: Float[Tensor, " rollouts"]
    overlong: Float[Tensor, " rollouts"]
    kl: Float[Tensor, " rollouts"]
    total: Float[Tensor, " rollouts"]
    advantages: Float[Tensor, " rollouts"]


def assign_credit(
    rollouts: Rollouts,
    contrastive: Float[Tensor, " rollouts"],
    config: TrainConfig,
    *,
    logprobs: Float[Tensor, "rollouts tokens"],
    ref_logprobs: Float[Tensor, "rollouts tokens"] | None,
) -> Credit:
    r"""Rewards, as advantages over their group.

    $$R_i = r_i + c_i + o_i - \beta \sum_t \text{KL}_{it}$$

    of outcome, contrastive reward, overlong penalty and, with `loss.kl_in: reward`, the estimated KL of the policy that
    sampled to the reference policy.

    Args:
        rollouts: Judged.
        contrastive: Contrastive rewards; zeros without CLIPO.
        config: The run.
        logprobs: Under the policy that sampled.
        ref_logprobs: Under the reference policy, or None.
    """
    outcome, groups, mask = rollouts.outcome, rollouts.groups, rollouts.generation.response_mask
    overlong, kl = torch.zeros_like(outcome), torch.zeros_like(outcome)
    lengths, limit = mask.sum(1), config.rollout.max_new_tokens
    if config.reward.overlong_buffer > 0:
        buffer = max(1, round(config.reward.overlong_buffer * limit))
        overlong = overlong_penalty(lengths, max_length=limit, buffer=buffer, factor=config.reward.overlong_weight)
    if ref_logprobs is not None and config.loss.kl_in == "reward":
        per_token = _kl(logprobs, ref_logprobs, torch.zeros_like(logprobs), config.loss)
        kl = -config.loss.kl_weight * torch.where(mask, per_token, 0).sum(1)
    total = outcome + contrastive + overlong + kl
    return Credit(outcome, contrastive, overlong, kl, total, _advantages(total, lengths, groups, config.loss))


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
    entropy: Float[Tensor, "rollouts tokens"] | None = None,
) -> PolicyLoss:
    r"""The surrogate, plus the weighted KL to a reference policy, less the weighted entropy, where there are such.

    $$\ell_{it} + \beta\, \text{KL}_{it} - \alpha H_{it}$$

    per token; `loss.aggregation` makes it one number.

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
        entropy: Of the policy being updated, with its gradient; None without a bonus for it.
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    weights = None
    if rollout_logprobs is not None and config.rollout_correction != "none":
        weights = _mismatch_weights(old_logprobs, rollout_logprobs, mask, config)
    surrogate = _surrogate(logprobs, ratio, advantages, mask, config, weights)
    per_token = surrogate.loss
    if weights is not None and config.surrogate != "vespo":  # whose weight takes them in
        per_token = per_token * weights
    if ref_logprobs is not None and config.kl_in == "loss":
        per_token = per_token + config.kl_weight * _kl(logprobs, ref_logprobs, ratio, config)
    if entropy is not None:
        per_token = per_token - config.entropy_weight * entropy
    moved = kl_estimate(torch.zeros_like(ratio), ratio.detach())  # as `approximate_kl`, to be aggregated
    return PolicyLoss(
        aggregate(per_token, mask, mode=config.aggregation, denominator=denominator),
        aggregate(surrogate.clipped.float(), mask, denominator=tokens),
        aggregate(moved, mask, denominator=tokens),
    )


def _kl(logprobs: Tensor, ref_logprobs: Tensor, token_log_ratio: Tensor, config: LossConfig) -> Tensor:
    if config.kl_estimator == "unbiased":
        return unbiased_kl_estimate(logprobs, ref_logprobs, token_log_ratio)
    return kl_estimate(logprobs, ref_logprobs, estimator=config.kl_estimator)


def _surrogate(
    logprobs: Tensor,
    token_log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: LossConfig,
    importance_weights: Tensor | None,
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
        case "vespo":
            return vespo_surrogate(logprobs, token_log_ratio, advantages, mask, importance_weights=importance_weights)
        case "dppo":
            return dppo_surrogate(logprobs, token_log_ratio, advantages)


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
