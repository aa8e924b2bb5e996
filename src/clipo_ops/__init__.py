"""CLIPO's algorithm as pure, shape-typed tensor functions (arXiv 2603.10101).

Everything public is a name of this package; modules beginning with an underscore are not.
"""

from clipo_ops._advantages import grpo_advantages
from clipo_ops._clipo import clipo_rewards
from clipo_ops._contrastive import (
    Objective,
    contrastive_anchors,
    contrastive_loss,
    infonce,
    soft_nearest_neighbor,
    supcon_in,
    supcon_out,
)
from clipo_ops._covariance_surrogates import clip_cov_surrogate, kl_cov_surrogate
from clipo_ops._diagnostics import GroupSimilarity, group_similarity
from clipo_ops._groups import GroupLayout
from clipo_ops._importance import gspo_token_log_ratio, log_ratio, sequence_log_ratio
from clipo_ops._logprobs import kl_estimate, token_entropy, token_logprobs
from clipo_ops._losses import cispo_loss, dapo_loss, dr_grpo_loss, grpo_loss, sapo_loss
from clipo_ops._masking import aggregate, aggregate_denominator
from clipo_ops._pooling import last_token_pool, mean_pool
from clipo_ops._rewards import contrastive_reward
from clipo_ops._rollout_correction import (
    masked_importance_weights,
    off_policy_sequence_mask,
    top_entropy_mask,
    truncated_importance_weights,
)
from clipo_ops._sequence_losses import gmpo_loss, gspo_loss, luspo_loss, vespo_loss
from clipo_ops._sequence_surrogates import geometric_mean_surrogate, vespo_surrogate
from clipo_ops._surrogates import Surrogate, clipped_surrogate, sapo_surrogate
from clipo_ops._weighted_surrogates import cispo_surrogate, dppo_surrogate, policy_gradient_surrogate

__all__ = [
    "GroupLayout",
    "GroupSimilarity",
    "Objective",
    "Surrogate",
    "aggregate",
    "aggregate_denominator",
    "cispo_loss",
    "cispo_surrogate",
    "clip_cov_surrogate",
    "clipo_rewards",
    "clipped_surrogate",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "dapo_loss",
    "dppo_surrogate",
    "dr_grpo_loss",
    "geometric_mean_surrogate",
    "gmpo_loss",
    "group_similarity",
    "grpo_advantages",
    "grpo_loss",
    "gspo_loss",
    "gspo_token_log_ratio",
    "infonce",
    "kl_cov_surrogate",
    "kl_estimate",
    "last_token_pool",
    "log_ratio",
    "luspo_loss",
    "masked_importance_weights",
    "mean_pool",
    "off_policy_sequence_mask",
    "policy_gradient_surrogate",
    "sapo_loss",
    "sapo_surrogate",
    "sequence_log_ratio",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "token_entropy",
    "token_logprobs",
    "top_entropy_mask",
    "truncated_importance_weights",
    "vespo_loss",
    "vespo_surrogate",
]
