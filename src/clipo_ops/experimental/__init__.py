"""Relatives of CLIPO's reward, from other papers and from this project's study; they may change in any release.

Import them as `from clipo_ops.experimental import consensus_reward`.
"""

from clipo_ops.experimental.alignment import hidden_align_loss
from clipo_ops.experimental.centroid import latent_grpo_reward
from clipo_ops.experimental.consensus import consensus_reward
from clipo_ops.experimental.labels import conspo_loss, real_loss
from clipo_ops.experimental.spans import shear_weights

__all__ = [
    "consensus_reward",
    "conspo_loss",
    "hidden_align_loss",
    "latent_grpo_reward",
    "real_loss",
    "shear_weights",
]
