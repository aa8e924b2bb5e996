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


def surrogate(
    loss: Tensor, ratio: Tensor, advantages: Tensor, log_ratio: Tensor, *, clipped: Tensor | None = None
) -> Surrogate:
    """The result in the log-ratio's dtype; nothing is clipped unless given.

    The loss is NaN where a log-ratio is NaN or an advantage not finite. `bounded` and `per_token` have put 0 there, so
    that the NaN shows in the value and reaches no gradient.
    """
    finite = advantages.isfinite()
    defined = (finite.unsqueeze(1) if finite.ndim == 1 else finite) & log_ratio.isnan().logical_not()
    loss = rounded(torch.where(defined, loss, torch.nan), log_ratio.dtype)
    if clipped is None:
        clipped = torch.zeros_like(loss, dtype=torch.bool)
    return Surrogate(loss, rounded(ratio.detach(), log_ratio.dtype), clipped)


def bounded(log_ratio: Tensor) -> Tensor:
    """A log-ratio in at least float32 whose exponential is finite; 0, without a gradient, where it is NaN."""
    values = at_least_float32(log_ratio)
    return torch.where(values.isnan(), 0, values).clamp(-EXP_LIMIT, EXP_LIMIT)


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages as constants, one per token or one column for all tokens; 0 where they are not finite."""
    constant = advantages.detach().to(like.dtype).nan_to_num(0, 0, 0)
    return constant.unsqueeze(1) if constant.ndim == 1 else constant


def by_sign(advantage: Tensor, positive: float, negative: float) -> Tensor:
    """The second number where the advantage is negative, the first elsewhere."""
    return torch.where(advantage < 0, torch.full_like(advantage, negative), positive)
