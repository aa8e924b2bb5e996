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
    Objective,
    contrastive_anchors,
    contrastive_loss,
    infonce,
    soft_nearest_neighbor,
    supcon_in,
    supcon_out,
)
from clipo_ops._diagnostics import GroupSimilarity, group_similarity
from clipo_ops._groups import GroupLayout
from clipo_ops._importance import log_ratio
from clipo_ops._logprobs import kl_estimate, token_entropy, token_logprobs
from clipo_ops._masking import aggregate, aggregate_denominator, whiten
from clipo_ops._pooling import last_token_pool, mean_pool
from clipo_ops._returns import (
    GeneralizedAdvantages,
    gae_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
)
from clipo_ops._rewards import contrastive_reward, overlong_penalty, token_level_rewards
from clipo_ops._surrogates import Surrogate, clipped_surrogate

__all__ = [
    "GeneralizedAdvantages",
    "GroupLayout",
    "GroupSimilarity",
    "Objective",
    "Surrogate",
    "aggregate",
    "aggregate_denominator",
    "clipped_surrogate",
    "combine_rewards",
    "contrastive_anchors",
    "contrastive_loss",
    "contrastive_reward",
    "gae_advantages",
    "gdpo_advantages",
    "gpg_advantages",
    "group_similarity",
    "grpo_advantages",
    "guarded_rewards",
    "infonce",
    "informative_groups",
    "kl_estimate",
    "last_token_pool",
    "log_ratio",
    "maxrl_advantages",
    "mean_pool",
    "negative_credit",
    "opo_advantages",
    "overlong_penalty",
    "pass_at_k_advantages",
    "reinforce_plus_plus_advantages",
    "reinforce_plus_plus_baseline_advantages",
    "remax_advantages",
    "reward_inversions",
    "rloo_advantages",
    "soft_nearest_neighbor",
    "supcon_in",
    "supcon_out",
    "token_entropy",
    "token_level_rewards",
    "token_logprobs",
    "whiten",
]
