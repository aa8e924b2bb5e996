"""CLIPO's algorithm as pure, shape-typed tensor functions (arXiv 2603.10101).

Everything public is a name of this package; modules beginning with an underscore are not.
"""

from clipo_ops._advantages import (
    gdpo_advantages,
    gpg_advantages,
    grpo_advantages,
    maxrl_advantages,
    negative_credit,
    opo_advantages,
    pass_at_k_advantages,
    remax_advantages,
    rloo_advantages,
)
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
from clipo_ops._losses.sequence import gmpo_loss, gspo_loss, luspo_loss, vespo_loss
from clipo_ops._losses.token import cispo_loss, dapo_loss, dr_grpo_loss, grpo_loss, sapo_loss
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
from clipo_ops._returns import (
    GeneralizedAdvantages,
    gae_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
)
from clipo_ops._rewards.combination import combine_rewards, guarded_rewards, informative_groups, reward_inversions
from clipo_ops._rewards.contrastive import clipo_rewards, contrastive_reward
from clipo_ops._rewards.shaping import (
    cosine_length_reward,
    overlong_penalty,
    pass_rate_length_penalty,
    repetition_penalty,
    token_level_rewards,
)
from clipo_ops._surrogates.clipped import clipped_surrogate, sapo_surrogate
from clipo_ops._surrogates.covariance import clip_cov_surrogate, kl_cov_surrogate
from clipo_ops._surrogates.result import Surrogate
from clipo_ops._surrogates.sequence import geometric_mean_surrogate, vespo_surrogate
from clipo_ops._surrogates.weighted import cispo_surrogate, dppo_surrogate, policy_gradient_surrogate

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
    "center_by_group",
    "centroid",
    "cispo_loss",
    "cispo_surrogate",
    "clamp_fraction",
    "clip_cov_surrogate",
    "clip_fraction",
    "clipo_rewards",
    "clipped_surrogate",
    "combine_rewards",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "cosine_length_reward",
    "dapo_loss",
    "dcl",
    "degenerate_fraction",
    "divergence_mask",
    "dppo_surrogate",
    "dr_grpo_loss",
    "effective_sample_size",
    "gae_advantages",
    "gather_rollouts",
    "gdpo_advantages",
    "geometric_mean_surrogate",
    "gmpo_loss",
    "gpg_advantages",
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
    "truncated_importance_weights",
    "unbiased_kl_estimate",
    "vespo_loss",
    "vespo_surrogate",
    "veto_mask",
    "weighted_pool",
    "whiten",
]
