"""What surrogates return and share."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._numerics import EXP_LIMIT, at_least_float32, rounded


class Surrogate(NamedTuple):
    """A surrogate's result.

    Attributes:
        loss: To minimise, per token; reduce it with `aggregate`.
        ratio: The importance ratio per token, detached.
        clipped: True where a bound is active: the token then has no gradient of its own, or (in `cispo_surrogate` and
            `topr_surrogate`) a weight that is not its ratio.
    """

    loss: Float[Tensor, "rollouts tokens"]
    ratio: Float[Tensor, "rollouts tokens"]
    clipped: Bool[Tensor, "rollouts tokens"]


def surrogate(loss: Tensor, ratio: Tensor, dtype: torch.dtype, *, clipped: Tensor | None = None) -> Surrogate:
    """The result, in the log-ratio's dtype; nothing is clipped unless given."""
    if clipped is None:
        clipped = torch.zeros((), dtype=torch.bool, device=loss.device).expand_as(loss)
    return Surrogate(rounded(loss, dtype), rounded(ratio.detach(), dtype), clipped)


def bounded(log_ratio: Tensor) -> Tensor:
    """A log-ratio in at least float32 whose exponential is finite; NaN stays NaN, and has no gradient."""
    return at_least_float32(log_ratio).clamp(-EXP_LIMIT, EXP_LIMIT)


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages as constants, one per token or one column for all tokens; NaN where they are not finite."""
    constant = advantages.detach().to(like.dtype)
    constant = torch.where(constant.isfinite(), constant, torch.nan)
    return constant.unsqueeze(1) if constant.ndim == 1 else constant


def known(values: Tensor, factor: Tensor) -> Tensor:
    """Values without a gradient where the factor that they are multiplied by is not finite.

    A token under a mask has gradient 0, but 0 times NaN is NaN.
    """
    return torch.where(factor.isfinite(), values, values.detach())


def weighted(logprobs: Tensor, weight: Tensor) -> Tensor:
    """Weights, which are constants, times log-probabilities in at least float32."""
    return weight * known(at_least_float32(logprobs), weight)


def by_sign(advantage: Tensor, positive: float, negative: float) -> Tensor:
    """The second number where the advantage is negative, the first elsewhere."""
    return torch.where(advantage < 0, torch.full_like(advantage, negative), positive)
