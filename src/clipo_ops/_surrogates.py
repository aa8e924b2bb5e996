"""Policy objectives per token, unreduced and with the sign to minimise."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._typing import at_least_float32, require, shaped

_EXP_LIMIT = 80.0  # exp(80) is finite in float32, with room for an advantage


class Surrogate(NamedTuple):
    """A surrogate's result.

    Attributes:
        loss: To minimise, per token; reduce it with `aggregate`.
        ratio: The importance ratio per token, detached.
        clipped: True where a clip is active, so that the token has no gradient.
    """

    loss: Float[Tensor, "rollouts tokens"]
    ratio: Float[Tensor, "rollouts tokens"]
    clipped: Bool[Tensor, "rollouts tokens"]


@shaped
def clipped_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
) -> Surrogate:
    r"""PPO's clipped surrogate, with separate bounds for either side and an optional dual clip.

    $$\ell_{it} = \max\bigl(-\rho_{it} A_{it},\; -\operatorname{clip}(\rho_{it}, 1 - \epsilon_\text{low},
    1 + \epsilon_\text{high})\, A_{it}\bigr), \qquad \rho_{it} = e^{d_{it}}$$

    and with a dual clip $c$, where $A_{it} < 0$, at most $-c\, A_{it}$. At ratio 1 the gradient is that of
    $-A_{it} \log \pi$. It is 0 wherever `clipped` is True.

    Args:
        log_ratio: $d$, as from `log_ratio`. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        epsilon_low: In [0, 1]: the ratio may fall to 1 - epsilon_low.
        epsilon_high: At least 0: the ratio may rise to 1 + epsilon_high. DAPO's "clip higher" takes .2 and .28.
        dual_clip: $c$ above 1, usually 3, or None.

    Returns:
        Loss, ratio and clip indicator per token, of the log-ratio's dtype, computed in at least float32.

    Raises:
        ValueError: A bound outside its range.

    Source:
        PPO (arXiv 1707.06347, eq. 7); asymmetric bounds: DAPO (arXiv 2503.14476, eq. 10); dual clip: Ye et al.
        (arXiv 1912.09729).

    Examples:
        >>> result = clipped_surrogate(torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[1.0, 1.0, -1.0]]))
        >>> result.loss
        tensor([[-1.0000, -1.2000,  1.6487]])
        >>> result.clipped
        tensor([[False,  True, False]])
    """
    require(0 <= epsilon_low <= 1, "epsilon_low", "a number in [0, 1]", epsilon_low)
    require(epsilon_high >= 0, "epsilon_high", "a number of at least 0", epsilon_high)
    require(dual_clip is None or dual_clip > 1, "dual_clip", "a number above 1 or None", dual_clip)
    ratio = at_least_float32(log_ratio).clamp(-_EXP_LIMIT, _EXP_LIMIT).exp()
    advantage = advantages.detach().to(ratio.dtype)
    advantage = (advantage.unsqueeze(1) if advantage.ndim == 1 else advantage).expand_as(ratio)
    free = -advantage * ratio
    bounded = -advantage * ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    loss = torch.maximum(free, bounded)
    clipped = bounded > free
    if dual_clip is not None:
        ceiling = -dual_clip * advantage
        beyond = (advantage < 0) & (loss > ceiling)
        loss = torch.where(beyond, ceiling, loss)
        clipped = clipped | beyond
    return Surrogate(loss.to(log_ratio.dtype), ratio.detach().to(log_ratio.dtype), clipped)
