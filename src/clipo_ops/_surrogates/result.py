"""What surrogates return and share."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import hardtanh

from clipo_ops._numerics import EXP_LIMIT, at_least_float32, rounded


class Surrogate(NamedTuple):
    """A surrogate's result.

    Attributes:
        loss: To minimise, per token; reduce it with `aggregate`. It has a first derivative only.
        ratio: The importance ratio per token, detached.
        clipped: True where a clip is active, so that the token has no gradient of its own (in `cispo_surrogate`: so
            that it has a bounded one).
    """

    loss: Float[Tensor, "rollouts tokens"]
    ratio: Float[Tensor, "rollouts tokens"]
    clipped: Bool[Tensor, "rollouts tokens"]


def surrogate(
    loss: Tensor, ratio: Tensor, advantages: Tensor, log_ratio: Tensor, *, clipped: Tensor | None = None
) -> Surrogate:
    """Rounds to the log-ratio's dtype; nothing is clipped unless it says so.

    What `known` and `per_token` have put 0 for is a loss of NaN here: it shows in the value, and only there.
    """
    finite = advantages.isfinite()
    defined = (finite.unsqueeze(1) if finite.ndim == 1 else finite) & log_ratio.isnan().logical_not()
    loss = torch.where(defined, loss, torch.nan)
    if clipped is None:
        clipped = torch.zeros_like(loss, dtype=torch.bool)
    return Surrogate(rounded(loss, log_ratio.dtype), rounded(ratio, log_ratio.dtype), clipped)


def known(log_ratio: Tensor) -> Tensor:
    """A log-ratio in at least float32; 0, without a gradient, where it is NaN.

    Under a mask a loss has gradient 0, but 0 times NaN is NaN: no derivative may be multiplied by what stands there.
    """
    values = at_least_float32(log_ratio)
    return torch.where(values.isnan(), 0, values)


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """Advantages as constants, one per token or one column for all of them; 0 where they are not finite, as `known`."""
    constant = advantages.detach().to(like.dtype).nan_to_num(0, 0, 0)
    return constant.unsqueeze(1) if constant.ndim == 1 else constant


def with_slope(log_ratio: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
    """A loss whose derivative by each token's log-ratio is `slope`: backward is one product, and that is all it keeps.

    Autograd would go back through every operation; compiled, through the log-ratio, read and exponentiated once more.
    """
    result: Tensor = _WithSlope.apply(log_ratio, loss, slope)  # type: ignore[no-untyped-call]
    return result


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(log_ratio: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
        return loss.view_as(loss)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """A ratio that is finite, and so is its gradient (`hardtanh` is a clamp with a backward in one pass)."""
    return hardtanh(log_ratio, -EXP_LIMIT, EXP_LIMIT).exp_()


def clamp_by_sign(log_ratio: Tensor, advantage: Tensor, *, low: float, high: float, cap: float) -> Tensor:
    """PPO's one-sided clip in the logarithm: at most high where A > 0, between low and cap where A < 0."""
    negative = advantage < 0
    lower = torch.full_like(advantage, -EXP_LIMIT).masked_fill(negative, low)
    upper = torch.full_like(advantage, EXP_LIMIT).masked_fill(negative, cap).masked_fill(advantage > 0, high)
    return torch.clamp(log_ratio, lower, upper)
