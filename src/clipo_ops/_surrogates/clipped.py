"""Surrogates of the ratio itself, which a clip or a gate bounds."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._surrogates.result import Surrogate, bounded, by_sign, known, per_token, surrogate
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
    r"""PPO's clipped surrogate, with one bound for each side and an optional dual or two-sided clip.

    $$\ell_{it} = \max\bigl(-\rho_{it} A_{it},\; -\operatorname{clip}(\rho_{it}, 1 - \epsilon_\text{low},
    1 + \epsilon_\text{high})\, A_{it}\bigr), \qquad \rho_{it} = e^{d_{it}}$$

    A dual clip $c$ bounds it by $-c\, A_{it}$ where $A_{it} < 0$. Two-sided clipping puts $\min(\rho_{it}, \delta)$ for
    the unclipped ratio; with $\delta \ge 1 + \epsilon_\text{high}$ it is the dual clip $c = \delta$.

    Args:
        log_ratio: $d$, as from `log_ratio`; clamped to +-80.
        advantages: $A$.
        epsilon_low: In [0, 1]: the ratio may fall to 1 - epsilon_low.
        epsilon_high: At least 0: the ratio may rise to 1 + epsilon_high. DAPO's "clip higher" takes 0.2 and 0.28.
        dual_clip: $c$ above 1, usually 3, or None.
        delta: $\delta$ above 1, usually 4, or None.

    Returns:
        Loss, ratio and clip indicator per token, of the log-ratio's dtype.

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
    d = bounded(log_ratio)
    advantage = per_token(advantages, d)
    ratio = known(d, advantage).exp()
    free, clip = ratio if delta is None else ratio.clamp(max=delta), ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    loss = torch.maximum(free * -advantage, clip * -advantage)
    if dual_clip is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, dual_clip * -advantage), loss)
    return surrogate(loss, ratio, log_ratio.dtype, clipped=loss != ratio * -advantage)


@shaped
def fipo_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    half_life: float = 32.0,
    weight_low: float = 1.0,
    weight_high: float = 1.2,
    safe_ratio: float = 10.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    dual_clip: float = 10.0,
) -> Surrogate:
    r"""FIPO: the clipped surrogate of advantages weighted by how the policy has moved on the tokens that follow.

    $$\tilde A_{it} = \operatorname{sg}[f_{it}]\, A_{it}, \qquad f_{it} = \operatorname{clip}\bigl(e^{F_{it}},
    \text{low}, \text{high}\bigr), \qquad F_{it} = \sum_{k \ge t} m_{ik}\, 1[\rho_{ik} \le c]\, \gamma^{k - t} d_{ik}$$

    with $\gamma = 2^{-1 / \text{half-life}}$ and $c$ the dual clip. Where $A_{it} < 0$ and $\rho_{it}$ exceeds
    `safe_ratio`, $f_{it}$ is at most 1. On the first update of a batch all weights are 1.

    Args:
        log_ratio: $d$, as from `log_ratio`; clamped to +-80.
        advantages: $A$.
        mask: $m$.
        half_life: Tokens after which a log-ratio counts half, above 0.
        weight_low: Lowest weight, in [0, 1].
        weight_high: Highest weight, at least 1.
        safe_ratio: Ratio above which no penalty is amplified, above 0.
        epsilon_low: As in `clipped_surrogate`.
        epsilon_high: As in `clipped_surrogate`.
        dual_clip: $c$ above 1; tokens of a higher ratio do not count in $F$ either.

    Returns:
        Loss, ratio and clip indicator per token, of the log-ratio's dtype.

    Raises:
        ValueError: A bound outside its range.

    Source:
        FIPO (arXiv 2603.19835), formula as in ms-swift and a copy of the authors' verl code. Defaults are those of
        their 32B run; for smaller models they clip the weight to [0.8, 1.2]. Their code also drops a response with more
        than one dual-clipped token, which this does not.

    Examples:
        >>> d, mask = torch.tensor([[0.0, 0.1]]), torch.tensor([[True, True]])
        >>> fipo_surrogate(d, torch.tensor([1.0]), mask, half_life=1.0).loss
        tensor([[-1.0513, -1.2214]])
    """
    require(half_life > 0, "half_life", "a number above 0", half_life)
    require(0 <= weight_low <= 1, "weight_low", "a number in [0, 1]", weight_low)
    require(weight_high >= 1, "weight_high", "a number of at least 1", weight_high)
    require(safe_ratio > 0, "safe_ratio", "a number above 0", safe_ratio)
    d = bounded(log_ratio.detach())
    counted = torch.where(mask & (d.exp() <= dual_clip), d, 0)
    future = _discounted_sums(counted, 2 ** (-1 / half_life))
    weight = bounded(future).exp().clamp(weight_low, weight_high)
    advantage = advantages.detach() if advantages.ndim == 2 else advantages.detach().unsqueeze(1)
    weight = torch.where((advantage < 0) & (d.exp() > safe_ratio), weight.clamp(max=1), weight)
    return clipped_surrogate(
        log_ratio, weight * advantage, epsilon_low=epsilon_low, epsilon_high=epsilon_high, dual_clip=dual_clip
    )


@shaped
def sapo_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
) -> Surrogate:
    r"""SAPO: a soft gate instead of the clip; it fades a token out the further its ratio is from 1.

    $$\ell_{it} = -\frac{4}{\tau} \operatorname{sigmoid}\bigl(\tau (\rho_{it} - 1)\bigr) A_{it}, \qquad \rho_{it} =
    e^{d_{it}}$$

    with $\tau$ by the sign of $A_{it}$.

    Args:
        log_ratio: $d$, as from `log_ratio`; clamped to +-80.
        advantages: $A$.
        temperature_positive: $\tau$ where $A > 0$, above 0. The higher, the narrower the gate.
        temperature_negative: $\tau$ where $A < 0$, above 0.

    Returns:
        Loss, ratio and clip indicator (False) per token, of the log-ratio's dtype.

    Raises:
        ValueError: A temperature that is not above 0.

    Source:
        Soft adaptive policy optimization (arXiv 2511.20347, section 3), formula as in verl. The paper reduces it by
        `seq-mean-token-mean`, as `sapo_loss` does.

    Examples:
        >>> sapo_surrogate(torch.tensor([[0.0, 20.0]]), torch.tensor([1.0])).loss
        tensor([[-2., -4.]])
    """
    require(temperature_positive > 0, "temperature_positive", "a number above 0", temperature_positive)
    require(temperature_negative > 0, "temperature_negative", "a number above 0", temperature_negative)
    d = bounded(log_ratio)
    advantage = per_token(advantages, d)
    ratio = known(d, advantage).exp()
    tau = by_sign(advantage, temperature_positive, temperature_negative)
    loss = torch.sigmoid(tau * (ratio - 1)) * (-4 / tau * advantage)
    return surrogate(loss, ratio, log_ratio.dtype)


def _discounted_sums(values: Tensor, discount: float, block: int = 64) -> Tensor:
    """At each token the sum of its own and all later values, discounted by their distance.

    That is a product with the matrix of discounts, within blocks of tokens and once more over the blocks: a matrix of
    tokens x tokens would not fit. Double precision is out of autocast's reach.
    """
    length = values.shape[1]
    blocks = -(-length // block)
    padded = torch.nn.functional.pad(values.double(), (0, blocks * block - length)).unflatten(1, (blocks, block))
    within = padded @ _discounts(block, discount, values)
    from_block = within.select(2, 0) @ _discounts(blocks, discount**block, values)
    from_next = torch.nn.functional.pad(from_block, (0, 1)).narrow(1, 1, blocks).unsqueeze(2)
    steps = torch.arange(
        block, 0, -1, device=values.device, dtype=torch.float64
    )  # to the first token of the next block
    sums: Tensor = within + from_next * torch.pow(discount, steps)
    return sums.flatten(1).narrow(1, 0, length).to(values.dtype)


def _discounts(size: int, discount: float, like: Tensor) -> Tensor:
    """Entry k, t is what a value at place k counts at place t: nothing if it lies behind."""
    place = torch.arange(size, device=like.device, dtype=torch.float64)
    steps = place.unsqueeze(1) - place
    return torch.where(steps >= 0, torch.pow(discount, steps.clamp(min=0)), 0)
