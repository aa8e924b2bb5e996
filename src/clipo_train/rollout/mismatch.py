"""The mismatch: how far a rollout engine's log-probabilities are from those the trainer computes of the same tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops import aggregate
from clipo_train.errors import ConfigError
from clipo_train.rollout import Generation


def logprob_gap(generation: Generation, logprobs: Float[Tensor, "rollouts tokens"]) -> dict[str, float]:
    """Mean and largest absolute difference over the response tokens; nothing if the engine has no log-probabilities."""
    if generation.logprobs is None:
        return {}
    mask = generation.response_mask
    gap = (generation.logprobs - logprobs.float()).abs()
    return {
        "rollout/engine_logprob_gap": float(aggregate(gap, mask)),
        "rollout/engine_logprob_gap_max": float(torch.where(mask, gap, 0).max()),
    }


def require_agreement(gap: dict[str, float], tolerance: float) -> None:
    """Refuses an engine that samples from another policy than the one that is trained.

    Raises:
        ConfigError: The largest difference of `logprob_gap` is above `tolerance`.
    """
    largest = gap.get("rollout/engine_logprob_gap_max", 0.0)
    if not largest <= tolerance:
        raise ConfigError(
            f"rollout.logprob_tolerance: expected the engine's log-probabilities within {tolerance:g} "
            f"of the trainer's, "
            f"got {largest:.3g} apart; if that is rounding, as in bfloat16, raise it and set loss.rollout_correction, "
            "else the weights did not arrive: use rollout.engine transformers"
        )
