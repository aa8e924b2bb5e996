"""CLIPO's algorithm as pure, shape-typed tensor functions (arXiv 2603.10101).

Everything public is a name of this package; modules beginning with an underscore are not.
"""

from clipo_ops._advantages import grpo_advantages
from clipo_ops._contrastive import contrastive_anchors, contrastive_loss
from clipo_ops._diagnostics import GroupSimilarity, group_similarity
from clipo_ops._distributed import gather_rollouts
from clipo_ops._groups import GroupLayout
from clipo_ops._importance import log_ratio
from clipo_ops._logprobs import kl_estimate, token_entropy, token_logprobs
from clipo_ops._masking import aggregate, aggregate_denominator
from clipo_ops._objectives import (
    Objective,
    centroid,
    decoupled,
    infonce,
    soft_nearest_neighbor,
    supcon_in,
    supcon_out,
)
from clipo_ops._pooling import last_token_pool, mean_pool
from clipo_ops._rewards import contrastive_reward
from clipo_ops._surrogates import Surrogate, clipped_surrogate

__all__ = [
    "GroupLayout",
    "GroupSimilarity",
    "Objective",
    "Surrogate",
    "aggregate",
    "aggregate_denominator",
    "centroid",
    "clipped_surrogate",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "decoupled",
    "gather_rollouts",
    "group_similarity",
    "grpo_advantages",
    "infonce",
    "kl_estimate",
    "last_token_pool",
    "log_ratio",
    "mean_pool",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "token_entropy",
    "token_logprobs",
]
