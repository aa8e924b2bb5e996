"""Surrogates that hold back the few tokens which take most of the policy's entropy away."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._masking import sequence_sum
from clipo_ops._numerics import at_least_float32, uniform_like
from clipo_ops._surrogates.clipped import clipped_surrogate
from clipo_ops._surrogates.result import Surrogate, bounded, known, per_token, surrogate
from clipo_ops._typing import require, shaped


@shaped
def clip_cov_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    fraction: float = 2e-4,
    covariance_low: float = 1.0,
    covariance_high: float = 5.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    generator: torch.Generator | None = None,
) -> Surrogate:
    r"""Clip-Cov: `clipped_surrogate` without a few tokens drawn among those of high covariance.

    $$\kappa_{it} = \bigl(A_{it} - \bar A\bigr) \bigl(\log \pi(y_{it}) - \overline{\log \pi}\bigr)$$

    with means over the valid tokens. Of the unclipped tokens with $\text{low} < \kappa < \text{high}$,
    max(1, floor(fraction $n$)) are drawn without replacement, $n$ being the valid tokens; they get loss 0 and no
    gradient. Means and number are those of the tokens given.

    Args:
        logprobs: $\log \pi$; they only choose tokens.
        log_ratio: As in `clipped_surrogate`.
        advantages: $A$.
        mask: True where a token counts.
        fraction: In (0, 1]: how many of the valid tokens to drop.
        covariance_low: Covariance above which a token may be drawn.
        covariance_high: Covariance below which a token may be drawn, above `covariance_low`.
        epsilon_low: As in `clipped_surrogate`. The authors' scripts set both bounds to 1; 0.2 is verl's default.
        epsilon_high: As in `clipped_surrogate`.
        generator: Where the draw comes from; the device's default generator when None.

    Returns:
        Loss, ratio and clip indicator per token; a token that is dropped counts as clipped. Of the log-ratio's dtype.

    Raises:
        ValueError: `fraction` or a bound outside its range.

    Source:
        The entropy mechanism of RL for reasoning language models (arXiv 2505.22617, Clip-Cov); fraction and covariance
        bounds as in the authors' scripts.

    Examples:
        >>> logprobs, advantages = torch.tensor([[-0.1, -9.0, -4.0]]), torch.tensor([[1.0, -1.0, 1.0]])
        >>> clip_cov_surrogate(logprobs, torch.zeros(1, 3), advantages, torch.tensor([[True, True, True]])).loss
        tensor([[ 0.,  1., -1.]])
    """
    require(0 < fraction <= 1, "fraction", "a number in (0, 1]", fraction)
    require(covariance_high > covariance_low, "covariance_high", "a number above covariance_low", covariance_high)
    draw = uniform_like(log_ratio, generator)
    loss, ratio, clipped = clipped_surrogate(log_ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high)
    covariance = _covariance(logprobs, advantages, mask)
    eligible = mask & clipped.logical_not() & (covariance > covariance_low) & (covariance < covariance_high)
    dropped = eligible & _largest(torch.where(eligible, draw, -1), _count(mask, fraction))
    return Surrogate(torch.where(dropped, 0, loss), ratio, clipped | dropped)


@shaped
def kl_cov_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    fraction: float = 2e-4,
    kl_weight: float = 1.0,
) -> Surrogate:
    r"""KL-Cov: the unclipped surrogate, with a penalty on the tokens of highest covariance.

    $$\ell_{it} = -\rho_{it} A_{it} + \beta\, |d_{it}|\, 1[(i, t) \in \text{top}], \qquad \rho_{it} = e^{d_{it}}$$

    The top are the max(1, floor(fraction $n$)) of the $n$ valid tokens with the highest covariance $\kappa$, as in
    `clip_cov_surrogate`; of equal ones the first.

    Args:
        logprobs: $\log \pi$; they only choose tokens.
        log_ratio: $d$, as from `log_ratio`; clamped to +-80.
        advantages: $A$.
        mask: True where a token counts.
        fraction: In (0, 1]: how many of the valid tokens to penalise. The authors take 0.0002 for 32B, 0.002 for 7B.
        kl_weight: $\beta$, at least 0. The authors' scripts take 1, verl's default is 0.1.

    Returns:
        Loss, ratio and clip indicator (False) per token, of the log-ratio's dtype.

    Raises:
        ValueError: `fraction` or `kl_weight` outside its range.

    Source:
        The entropy mechanism of RL for reasoning language models (arXiv 2505.22617, KL-Cov).

    Examples:
        >>> logprobs, mask = torch.tensor([[-0.1, -9.0]]), torch.tensor([[True, True]])
        >>> kl_cov_surrogate(logprobs, torch.full((1, 2), -0.5), torch.tensor([[1.0, 0.0]]), mask).loss
        tensor([[-0.1065,  0.0000]])
    """
    require(0 < fraction <= 1, "fraction", "a number in (0, 1]", fraction)
    require(kl_weight >= 0, "kl_weight", "a number of at least 0", kl_weight)
    d = bounded(log_ratio)
    advantage = per_token(advantages, d)
    d = known(d, advantage)
    ratio = d.exp()
    top = mask & _largest(_covariance(logprobs, advantages, mask), _count(mask, fraction))
    loss = ratio * -advantage + torch.where(top, kl_weight * d.abs(), 0)
    return surrogate(loss, ratio, log_ratio.dtype)


def _covariance(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Covariances of advantage and log-probability, detached; -inf under a False mask."""
    count = mask.sum().clamp(min=1)

    def centered(values: Tensor) -> Tensor:
        return values - sequence_sum(values, mask).sum() / count

    logprobs = at_least_float32(logprobs.detach())
    advantage = per_token(advantages, logprobs).nan_to_num(0).expand_as(logprobs)
    return torch.where(mask, centered(advantage) * centered(logprobs), -torch.inf)


def _count(mask: Tensor, fraction: float) -> Tensor:
    """How many tokens a fraction of the valid ones is: rounded down, but one at least."""
    return mask.sum().double().mul(fraction).long().clamp(min=1)


def _largest(values: Tensor, count: Tensor) -> Tensor:
    """True at the `count` largest values, without waiting for the count; of equal ones the first."""
    order = values.flatten().argsort(descending=True, stable=True)
    chosen = torch.zeros_like(order, dtype=torch.bool)
    return chosen.scatter(0, order, torch.arange(len(order), device=order.device) < count).view_as(values)
