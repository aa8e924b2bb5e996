"""Surrogates that are a constant weight on the log-probability."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._numerics import at_least_float32
from clipo_ops._surrogates.result import Surrogate, bounded_exp, known, per_token, surrogate
from clipo_ops._typing import require, shaped

Divergence = Literal["tv", "kl"]


@shaped
def policy_gradient_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
) -> Surrogate:
    r"""REINFORCE: for one update per batch, by the policy that sampled it.

    $$\ell_{it} = -A_{it} \log \pi(y_{it})$$

    Args:
        logprobs: $\log \pi$, the log-probabilities of the response tokens under the policy.
        advantages: $A$, one per rollout or one per token; treated as a constant.

    Returns:
        Loss, ratio (1) and clip indicator (False) per token, of the log-probabilities' dtype.

    Source:
        Back to basics (arXiv 2402.14740).

    Examples:
        >>> policy_gradient_surrogate(torch.tensor([[-1.0, -3.0]]), torch.tensor([2.0])).loss
        tensor([[2., 6.]])
    """
    values = at_least_float32(logprobs)
    return surrogate(-per_token(advantages, values) * values, torch.ones_like(values), advantages, logprobs)


@shaped
def cispo_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    ratio_low: float = 0.0,
    ratio_high: float = 5.0,
) -> Surrogate:
    r"""CISPO: REINFORCE, weighted by a clipped importance ratio; a clipped token keeps its gradient.

    $$\ell_{it} = -\operatorname{sg}[\operatorname{clip}(\rho_{it}, \text{low}, \text{high})]\, A_{it} \log \pi(y_{it}),
    \qquad \rho_{it} = e^{d_{it}}$$

    At ratio 1 the gradient is that of $-A_{it} \log \pi$.

    Args:
        logprobs: $\log \pi$, the log-probabilities of the response tokens under the policy.
        log_ratio: $d$, as from `log_ratio`; treated as a constant. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        ratio_low: Lowest weight, in [0, 1]. The paper has none.
        ratio_high: Highest weight, at least 1.

    Returns:
        Loss, ratio before the clip, and clip indicator per token, of the log-ratio's dtype.

    Raises:
        ValueError: A bound outside its range.

    Source:
        MiniMax-M1 (arXiv 2506.13585, eq. 4 and 5); the upper bound of 5: ScaleRL (arXiv 2510.13786).

    Examples:
        >>> logprobs, d = torch.tensor([[-1.0, -1.0]]), torch.tensor([[0.0, 3.0]])
        >>> cispo_surrogate(logprobs, d, torch.tensor([2.0])).loss
        tensor([[ 2., 10.]])
    """
    require(0 <= ratio_low <= 1, "ratio_low", "a number in [0, 1]", ratio_low)
    require(ratio_high >= 1, "ratio_high", "a number of at least 1", ratio_high)
    ratio = bounded_exp(known(log_ratio.detach()))
    weight = ratio.clamp(ratio_low, ratio_high)
    clipped = ratio > ratio_high
    if ratio_low > 0:
        clipped = clipped.logical_or_(ratio < ratio_low)
    loss = weight.mul_(-per_token(advantages, ratio)) * at_least_float32(logprobs)
    return surrogate(loss, ratio, advantages, log_ratio, clipped=clipped)


@shaped
def dppo_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    divergence: Divergence = "tv",
    threshold_low: float = 0.2,
    threshold_high: float = 0.2,
    ratio_high: float = 20.0,
) -> Surrogate:
    r"""DPPO: a token is dropped by how much probability has moved, not by its ratio.

    $$\ell_{it} = -\operatorname{sg}[\min(\rho_{it}, \text{high})]\, A_{it} \log \pi(y_{it})$$

    or 0, without a gradient, where $A_{it} d_{it} > 0$ (the policy has already moved the way of the advantage) and the
    divergence between the token and all others exceeds its threshold. With $p = \pi_\text{old}(y_{it})$ and
    $q = \pi(y_{it})$, the divergence is $|p - q|$ for `tv` and for `kl`

    $$p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q}$$

    At ratio 1 the gradient is that of $-A_{it} \log \pi$.

    Args:
        logprobs: $\log \pi$, the log-probabilities of the response tokens under the policy.
        log_ratio: $d = \log q - \log p$, as from `log_ratio`; treated as a constant. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        divergence: `"tv"`, total variation, or `"kl"`.
        threshold_low: Largest divergence where $A < 0$, at least 0.
        threshold_high: Largest divergence where $A > 0$, at least 0.
        ratio_high: Highest weight, at least 1.

    Returns:
        Loss, ratio before the bound, and True where the token is dropped; of the log-ratio's dtype.

    Raises:
        ValueError: Unknown `divergence`; a threshold or bound outside its range.

    Source:
        Rethinking the trust region in LLM reinforcement learning (arXiv 2602.04879, the binary approximations).

    Examples:
        >>> logprobs, d = torch.tensor([[-0.1, -5.0]]), torch.tensor([[0.5, 2.0]])
        >>> dppo_surrogate(logprobs, d, torch.tensor([1.0])).clipped
        tensor([[ True, False]])
    """
    require(threshold_low >= 0, "threshold_low", "a number of at least 0", threshold_low)
    require(threshold_high >= 0, "threshold_high", "a number of at least 0", threshold_high)
    require(ratio_high >= 1, "ratio_high", "a number of at least 1", ratio_high)
    d, new = known(log_ratio.detach()), at_least_float32(logprobs)
    advantage = per_token(advantages, d)
    distance = _binary_divergence(new.detach() - d, new.detach(), divergence)
    threshold = torch.full_like(advantage, threshold_low).masked_fill(advantage > 0, threshold_high)
    dropped = (advantage * d > 0) & (distance > threshold)
    ratio = bounded_exp(d)
    loss = torch.where(dropped, 0, ratio.clamp(max=ratio_high)) * -advantage * new
    return surrogate(loss, ratio, advantages, log_ratio, clipped=dropped)


def _binary_divergence(old: Tensor, new: Tensor, divergence: str) -> Tensor:
    if divergence == "tv":
        return (new.exp() - old.exp()).abs()
    tiny = torch.finfo(new.dtype).tiny
    old, new = old.clamp(max=0), new.clamp(max=0)
    rest_old, rest_new = -old.expm1(), -new.expm1()
    return old.exp() * (old - new) + rest_old * (rest_old.clamp(min=tiny).log() - rest_new.clamp(min=tiny).log())
