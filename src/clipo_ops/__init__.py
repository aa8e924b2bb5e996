"""CLIPO's algorithm as pure, shape-typed tensor functions (arXiv 2603.10101).

Everything public is a name of this package; modules beginning with an underscore are not.
"""

from clipo_ops._advantages.credit import gdpo_advantages, negative_credit, remax_advantages
from clipo_ops._advantages.group import (
    corpo_advantages,
    gpg_advantages,
    grpo_advantages,
    maxrl_advantages,
    opo_advantages,
    rloo_advantages,
)
from clipo_ops._advantages.pass_at_k import best_minus_second_advantages, pass_at_k_advantages
from clipo_ops._contrastive.loss import contrastive_anchors, contrastive_loss
from clipo_ops._contrastive.objectives import (
    Objective,
    centroid,
    dcl,
    infonce,
    sincere,
    soft_nearest_neighbor,
    supcon_in,
    supcon_out,
)
from clipo_ops._diagnostics.embeddings import (
    GroupSimilarity,
    group_similarity,
    length_bucket_similarity,
    noise_share,
)
from clipo_ops._diagnostics.policy import approximate_kl, clip_fraction, effective_sample_size
from clipo_ops._diagnostics.rewards import (
    ProcessGap,
    RewardByVerdict,
    clamp_fraction,
    degenerate_fraction,
    process_gap,
    reward_by_verdict,
)
from clipo_ops._distributed import gather_rollouts
from clipo_ops._groups import GroupLayout
from clipo_ops._importance.masks import (
    divergence_mask,
    importance_ratio_mask,
    off_policy_sequence_mask,
    second_moment_mask,
    veto_mask,
)
from clipo_ops._importance.ratios import gspo_token_log_ratio, log_ratio, sequence_log_ratio
from clipo_ops._importance.weights import masked_importance_weights, truncated_importance_weights
from clipo_ops._logprobs.kl import kl_estimate, unbiased_kl_estimate
from clipo_ops._logprobs.linear import LinearLogprobs, linear_token_logprobs
from clipo_ops._logprobs.tokens import token_entropy, token_logprobs
from clipo_ops._losses.clipped import dapo_loss, dr_grpo_loss, fipo_loss, grpo_loss, sapo_loss
from clipo_ops._losses.sequence import dro_loss, gmpo_loss, gspo_loss, luspo_loss, topr_loss, vespo_loss
from clipo_ops._losses.weighted import cispo_loss, dis_loss, gpg_loss
from clipo_ops._masking import aggregate, aggregate_denominator, group_token_counts, top_entropy_mask, whiten
from clipo_ops._pooling import (
    center_by_group,
    last_token_pool,
    max_pool,
    mean_pool,
    segment_mean_pool,
    token_pool,
    weighted_pool,
)
from clipo_ops._returns.gae import GeneralizedAdvantages, clipped_value_loss, gae_advantages, length_adaptive_lambda
from clipo_ops._returns.reinforce import (
    optimal_token_baseline_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
)
from clipo_ops._returns.steps import gigpo_advantages
from clipo_ops._rewards.combination import combine_rewards, guarded_rewards, informative_groups, reward_inversions
from clipo_ops._rewards.contrastive import clipo_rewards, contrastive_reward
from clipo_ops._rewards.shaping import (
    cosine_length_reward,
    overlong_penalty,
    pass_rate_length_penalty,
    repetition_penalty,
    token_level_rewards,
)
from clipo_ops._surrogates.clipped import clipped_surrogate, fipo_surrogate, sapo_surrogate
from clipo_ops._surrogates.covariance import clip_cov_surrogate, kl_cov_surrogate
from clipo_ops._surrogates.result import Surrogate
from clipo_ops._surrogates.sequence import (
    dro_surrogate,
    geometric_mean_surrogate,
    topr_surrogate,
    vespo_surrogate,
)
from clipo_ops._surrogates.weighted import cispo_surrogate, dis_surrogate, dppo_surrogate, policy_gradient_surrogate

__all__ = [
    "GeneralizedAdvantages",
    "GroupLayout",
    "GroupSimilarity",
    "LinearLogprobs",
    "Objective",
    "ProcessGap",
    "RewardByVerdict",
    "Surrogate",
    "aggregate",
    "aggregate_denominator",
    "approximate_kl",
    "best_minus_second_advantages",
    "center_by_group",
    "centroid",
    "cispo_loss",
    "cispo_surrogate",
    "clamp_fraction",
    "clip_cov_surrogate",
    "clip_fraction",
    "clipo_rewards",
    "clipped_surrogate",
    "clipped_value_loss",
    "combine_rewards",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "corpo_advantages",
    "cosine_length_reward",
    "dapo_loss",
    "dcl",
    "degenerate_fraction",
    "dis_loss",
    "dis_surrogate",
    "divergence_mask",
    "dppo_surrogate",
    "dr_grpo_loss",
    "dro_loss",
    "dro_surrogate",
    "effective_sample_size",
    "fipo_loss",
    "fipo_surrogate",
    "gae_advantages",
    "gather_rollouts",
    "gdpo_advantages",
    "geometric_mean_surrogate",
    "gigpo_advantages",
    "gmpo_loss",
    "gpg_advantages",
    "gpg_loss",
    "group_similarity",
    "group_token_counts",
    "grpo_advantages",
    "grpo_loss",
    "gspo_loss",
    "gspo_token_log_ratio",
    "guarded_rewards",
    "importance_ratio_mask",
    "infonce",
    "informative_groups",
    "kl_cov_surrogate",
    "kl_estimate",
    "last_token_pool",
    "length_adaptive_lambda",
    "length_bucket_similarity",
    "linear_token_logprobs",
    "log_ratio",
    "luspo_loss",
    "masked_importance_weights",
    "max_pool",
    "maxrl_advantages",
    "mean_pool",
    "negative_credit",
    "noise_share",
    "off_policy_sequence_mask",
    "opo_advantages",
    "optimal_token_baseline_advantages",
    "overlong_penalty",
    "pass_at_k_advantages",
    "pass_rate_length_penalty",
    "policy_gradient_surrogate",
    "process_gap",
    "reinforce_plus_plus_advantages",
    "reinforce_plus_plus_baseline_advantages",
    "remax_advantages",
    "repetition_penalty",
    "reward_by_verdict",
    "reward_inversions",
    "rloo_advantages",
    "sapo_loss",
    "sapo_surrogate",
    "second_moment_mask",
    "segment_mean_pool",
    "sequence_log_ratio",
    "sincere",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "token_entropy",
    "token_level_rewards",
    "token_logprobs",
    "token_pool",
    "top_entropy_mask",
    "topr_loss",
    "topr_surrogate",
    "truncated_importance_weights",
    "unbiased_kl_estimate",
    "vespo_loss",
    "vespo_surrogate",
    "veto_mask",
    "weighted_pool",
    "whiten",
]
