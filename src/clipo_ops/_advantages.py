"""Rewards -> advantages, one function per estimator."""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._groups import Groups, group_moments
from clipo_ops._typing import at_least_float32, require, shaped

if TYPE_CHECKING:
    Scale = Literal["group", "batch", "none"]
else:
    Scale = str  # so that a wrong name gets the ValueError below


@shaped
def grpo_advantages(
    rewards: Float[Tensor, " rollouts"],
    groups: Groups,
    *,
    scale: Scale = "group",
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Group-relative advantages: the reward less its group's mean, over a standard deviation.

    $$A_i = \frac{r_i - \bar r_{g_i}}{\sigma + \epsilon}$$

    The advantages of a group add up to 0. A group of one constant reward, a singleton included, has advantage EXACTLY
    0, whatever the reward and the scale: rounding is not divided by $\epsilon$.

    Args:
        rewards: One reward per rollout; NaN for a rollout that could not be scored, which is left out of the baseline
            and has advantage 0.
        groups: Group ids or a `GroupLayout`.
        scale: What $\sigma$ is: `"group"`, the standard deviation of the group's rewards; `"batch"`, that of all
            rewards given; `"none"` divides by nothing. Deviations are sample ones (n - 1).
        eps: $\epsilon$, at least 0, in units of the reward. Rewards that differ by much less than it are not scaled up
            to unit advantages.

    Returns:
        Advantages of the rewards' dtype, computed in at least float32.

    Raises:
        ValueError: Unknown `scale`; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2); `scale="none"` is Dr. GRPO (arXiv 2503.20783).

    Examples:
        >>> rewards = torch.tensor([1.0, 0.0, 0.0, 0.7, 0.7])
        >>> grpo_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]))
        tensor([ 1.1547, -0.5773, -0.5773,  0.0000,  0.0000])
    """
    require(scale in ("group", "batch", "none"), "scale", "'group', 'batch' or 'none'", scale)
    require(eps >= 0, "eps", "a number of at least 0", eps)
    values = at_least_float32(rewards)
    centered, squares, size = group_moments(values, groups)
    if scale == "none":
        return centered.to(rewards.dtype)
    if scale == "group":
        variance = squares / (size - 1).clamp(min=1)
    else:
        batch = group_moments(values, torch.zeros_like(values, dtype=torch.int64))
        variance = batch.squares / (batch.size - 1).clamp(min=1)
    constant = variance == 0
    deviation = torch.where(constant, 1, variance).sqrt() + eps
    return torch.where(constant, 0, centered / deviation).to(rewards.dtype)
