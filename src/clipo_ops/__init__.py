"""CLIPO's algorithm as pure, shape-typed tensor functions (arXiv 2603.10101).

Everything public is a name of this package; modules beginning with an underscore are not.
"""

from clipo_ops._advantages import (
    gpg_advantages,
    grpo_advantages,
    maxrl_advantages,
    opo_advantages,
    pass_at_k_advantages,
    remax_advantages,
    rloo_advantages,
)
from clipo_ops._combination import (
    combine_rewards,
    gdpo_advantages,
    guarded_rewards,
    informative_groups,
    negative_credit,
    reward_inversions,
)
from clipo_ops._contrastive import (
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
from clipo_ops._diagnostics import (
    GroupSimilarity,
    ProcessGap,
    clamp_fraction,
    degenerate_fraction,
    group_similarity,
    noise_share,
    process_gap,
)
from clipo_ops._groups import GroupLayout
from clipo_ops._importance import log_ratio
from clipo_ops._linear_logprobs import LinearLogprobs, linear_token_logprobs
from clipo_ops._logprobs import kl_estimate, token_entropy, token_logprobs
from clipo_ops._masking import aggregate, aggregate_denominator, whiten
from clipo_ops._policy_diagnostics import approximate_kl, clip_fraction, effective_sample_size
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
from clipo_ops._rewards import contrastive_reward, overlong_penalty, token_level_rewards
from clipo_ops._pooling import last_token_pool, mean_pool
from clipo_ops._rewards import contrastive_reward
from clipo_ops._surrogates import Surrogate, clipped_surrogate

__all__ = [
    "GeneralizedAdvantages",
    "GroupLayout",
    "GroupSimilarity",
    "LinearLogprobs",
    "Objective",
    "ProcessGap",
    "Surrogate",
    "aggregate",
    "aggregate_denominator",
    "approximate_kl",
    "center_by_group",
    "clamp_fraction",
    "clip_fraction",
    "centroid",
    "clipped_surrogate",
    "combine_rewards",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "degenerate_fraction",
    "effective_sample_size",
    "gae_advantages",
    "gdpo_advantages",
    "gpg_advantages",
    "decoupled",
    "gather_rollouts",
    "group_similarity",
    "grpo_advantages",
    "guarded_rewards",
    "infonce",
    "informative_groups",
    "kl_estimate",
    "last_token_pool",
    "linear_token_logprobs",
    "log_ratio",
    "max_pool",
    "maxrl_advantages",
    "mean_pool",
    "negative_credit",
    "noise_share",
    "opo_advantages",
    "overlong_penalty",
    "pass_at_k_advantages",
    "process_gap",
    "reinforce_plus_plus_advantages",
    "reinforce_plus_plus_baseline_advantages",
    "remax_advantages",
    "reward_inversions",
    "rloo_advantages",
    "segment_mean_pool",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "token_entropy",
    "token_level_rewards",
    "token_logprobs",
    "token_pool",
    "weighted_pool",
    "whiten",
]
