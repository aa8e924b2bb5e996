"""Surrogates of the importance ratio per token."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._numerics import EXP_LIMIT
from clipo_ops._surrogates.result import Surrogate, bounded_exp, clamp_by_sign, known, per_token, surrogate, with_slope
from clipo_ops._typing import require, shaped


@shaped
def clipped_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = None,
    delta: float | None = None,
) -> Surrogate:
    r"""PPO's clipped surrogate, with separate bounds for either side and an optional dual or two-sided clip.

    $$\ell_{it} = \max\bigl(-\rho_{it} A_{it},\; -\operatorname{clip}(\rho_{it}, 1 - \epsilon_\text{low},
    1 + \epsilon_\text{high})\, A_{it}\bigr), \qquad \rho_{it} = e^{d_{it}}$$

    With a dual clip $c$, where $A_{it} < 0$, at most $-c\, A_{it}$. With two-sided clipping, the unclipped ratio is
    $\min(\rho_{it}, \delta)$; for $\delta \ge 1 + \epsilon_\text{high}$ that is the dual clip with $c = \delta$. At
    ratio 1 the gradient is that of $-A_{it} \log \pi$. It is 0 wherever `clipped` is True.

    Args:
        log_ratio: $d$, as from `log_ratio`. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        epsilon_low: In [0, 1]: the ratio may fall to 1 - epsilon_low.
        epsilon_high: At least 0: the ratio may rise to 1 + epsilon_high. DAPO's "clip higher" takes .2 and .28.
        dual_clip: $c$ above 1, usually 3, or None.
        delta: $\delta$ above 1, usually 4, or None.

    Returns:
        Loss, ratio and clip indicator per token, of the log-ratio's dtype, computed in at least float32.

    Raises:
        ValueError: A bound outside its range.

    Source:
        PPO (arXiv 1707.06347, eq. 7); asymmetric bounds: DAPO (arXiv 2503.14476, eq. 10); dual clip: Ye et al.
        (arXiv 1912.09729); two-sided clipping: INTELLECT-2 (arXiv 2505.07291, section 3.4).

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
    require(delta is None or delta > 1, "delta", "a number above 1 or None", delta)
    low = math.log(1 - epsilon_low) if epsilon_low < 1 else -EXP_LIMIT
    high, cap = math.log1p(epsilon_high), EXP_LIMIT
    if delta is not None:
        high, cap = min(high, math.log(delta)), max(high, math.log(delta))
    if dual_clip is not None:
        cap = min(cap, math.log(dual_clip))
    d = known(log_ratio)
    advantage = per_token(advantages, d)
    bounded = clamp_by_sign(d.detach(), advantage, low=low, high=high, cap=cap)
    clipped = bounded != d.detach()
    loss = bounded.exp_().mul_(-advantage)
    loss = with_slope(d, loss, loss.masked_fill(clipped, 0))
    return surrogate(loss, bounded_exp(d.detach()), advantages, log_ratio, clipped=clipped)


@shaped
def sapo_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
) -> Surrogate:
    r"""SAPO: a soft gate in place of the clip, which fades a token out the further its ratio is from 1.

    $$\ell_{it} = -\frac{4}{\tau} \operatorname{sigmoid}\bigl(\tau (\rho_{it} - 1)\bigr) A_{it}, \qquad \rho_{it} =
    e^{d_{it}}$$

    with $\tau$ by the sign of $A_{it}$. At ratio 1 the gradient is that of $-A_{it} \log \pi$.

    Args:
        log_ratio: $d$, as from `log_ratio`. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        temperature_positive: $\tau$ where $A > 0$, above 0. The higher, the narrower the gate.
        temperature_negative: $\tau$ elsewhere, above 0.

    Returns:
        Loss, ratio and clip indicator (False: nothing is clipped) per token, of the log-ratio's dtype.

    Raises:
        ValueError: A temperature that is not above 0.

    Source:
        Soft adaptive policy optimization (arXiv 2511.20347, section 3).

    Examples:
        >>> sapo_surrogate(torch.tensor([[0.0, 20.0]]), torch.tensor([1.0])).loss
        tensor([[-2., -4.]])
    """
    require(temperature_positive > 0, "temperature_positive", "a number above 0", temperature_positive)
    require(temperature_negative > 0, "temperature_negative", "a number above 0", temperature_negative)
    d = known(log_ratio)
    advantage = per_token(advantages, d)
    tau = torch.full_like(advantage, temperature_negative).masked_fill(advantage > 0, temperature_positive)
    ratio = bounded_exp(d.detach())
    scaled = tau * ratio
    gate = (scaled - tau).sigmoid_()
    loss = gate * (advantage * -4 / tau)
    slope = torch.addcmul(loss, loss, gate, value=-1).mul_(scaled)
    return surrogate(with_slope(d, loss, slope), ratio, advantages, log_ratio)
