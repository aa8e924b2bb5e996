"""Surrogates that are a constant weight on each token's log-probability."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._numerics import at_least_float32
from clipo_ops._surrogates.result import Surrogate, bounded, by_sign, per_token, surrogate, weighted
from clipo_ops._typing import require, shaped

Divergence = Literal["tv", "kl"]


@shaped
def policy_gradient_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
) -> Surrogate:
    r"""REINFORCE: for one update per batch, by the policy that sampled it.

    $$\ell_{it} = -A_{it} \log \pi(y_{it})$$

    Every surrogate here has this one's gradient at ratio 1.

    Args:
        logprobs: $\log \pi$, the log-probabilities of the response tokens under the policy.
        advantages: $A$.

    Returns:
        Loss, ratio (1) and clip indicator (False) per token, of the log-probabilities' dtype.

    Source:
        Back to basics (arXiv 2402.14740).

    Examples:
        >>> policy_gradient_surrogate(torch.tensor([[-1.0, -3.0]]), torch.tensor([2.0])).loss
        tensor([[2., 6.]])
    """
    loss = weighted(logprobs, -per_token(advantages, at_least_float32(logprobs)))
    return surrogate(loss, torch.ones_like(loss), logprobs.dtype)


@shaped
def cispo_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    ratio_low: float = 0.0,
    ratio_high: float = 5.0,
) -> Surrogate:
    r"""CISPO: REINFORCE weighted by a clipped importance ratio; a clipped token keeps its gradient.

    $$\ell_{it} = -\operatorname{sg}[\operatorname{clip}(\rho_{it}, \text{low}, \text{high})]\, A_{it} \log \pi(y_{it}),
    \qquad \rho_{it} = e^{d_{it}}$$

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d$, as from `log_ratio`; a constant, clamped to +-80.
        advantages: $A$.
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
    ratio = bounded(log_ratio.detach()).exp()
    weight = ratio.clamp(ratio_low, ratio_high)
    loss = weighted(logprobs, weight * -per_token(advantages, ratio))
    return surrogate(loss, ratio, log_ratio.dtype, clipped=weight != ratio)


@shaped
def dis_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.3,
    epsilon_high: float = 5.0,
) -> Surrogate:
    r"""GLM-5's double-sided importance sampling: a token whose ratio leaves the trust region on either side is dropped.

    $$\ell_{it} = -\operatorname{sg}[f(\rho_{it})]\, A_{it} \log \pi(y_{it}), \qquad
    f(\rho) = \rho\; 1[1 - \epsilon_\text{low} < \rho < 1 + \epsilon_\text{high}], \qquad \rho_{it} = e^{d_{it}}$$

    Unlike PPO's clip it ignores the sign of $A$. The ratio is to the policy that SAMPLED, by the rollout engine's
    log-probabilities: no old policy is scored.

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d = \log \pi - \log \pi_\text{rollout}$, as from `log_ratio`; a constant, clamped to +-80.
        advantages: $A$.
        epsilon_low: In (0, 1]: ratios from 1 - epsilon_low down are dropped.
        epsilon_high: Above 0: ratios from 1 + epsilon_high up are dropped.

    Returns:
        Loss, ratio, and True where the token is dropped; of the log-ratio's dtype.

    Raises:
        ValueError: A bound outside its range.

    Source:
        GLM-5 (arXiv 2602.15763, section 4.1, eq. 3 to 5), which publishes no bounds. The defaults are those reported of
        its successor SAO (arXiv 2607.07508) for reasoning; for coding it takes 0.8 and 3.

    Examples:
        >>> logprobs, d = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[0.0, -0.5, 2.0]])
        >>> dis_surrogate(logprobs, d, torch.tensor([1.0])).loss
        tensor([[1., 0., 0.]])
    """
    require(0 < epsilon_low <= 1, "epsilon_low", "a number in (0, 1]", epsilon_low)
    require(epsilon_high > 0, "epsilon_high", "a number above 0", epsilon_high)
    ratio = bounded(log_ratio.detach()).exp()
    dropped = (ratio <= 1 - epsilon_low) | (ratio >= 1 + epsilon_high)
    weight = torch.where(dropped, 0, ratio)
    loss = weighted(logprobs, weight * -per_token(advantages, ratio))
    return surrogate(loss, ratio, log_ratio.dtype, clipped=dropped)


@shaped
def dppo_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    *,
    divergence: Divergence = "tv",
    threshold_low: float | None = None,
    threshold_high: float | None = None,
    ratio_high: float = math.inf,
) -> Surrogate:
    r"""DPPO: a token is dropped by how much probability has moved, not by its ratio.

    $$\ell_{it} = -\operatorname{sg}[\min(\rho_{it}, \text{high})]\, A_{it} \log \pi(y_{it})$$

    or 0, without a gradient, where $A_{it} d_{it} > 0$ (the policy has already moved the way of the advantage) and the
    divergence between the token and all others exceeds its threshold. With $p = \pi_\text{rollout}(y_{it})$ and
    $q = \pi(y_{it})$, it is $|p - q|$ for `tv` and for `kl`

    $$p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q}$$

    The trust region is anchored at the policy that SAMPLED: take the log-ratio to the rollout engine's
    log-probabilities. Anchored at recomputed old ones, training collapsed in the paper (takeaway 2).

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d = \log q - \log p$, as from `log_ratio`; a constant, clamped to +-80.
        advantages: $A$.
        divergence: `"tv"`, total variation, or `"kl"`.
        threshold_low: Largest divergence where $A < 0$, at least 0; when None, 0.15 for `tv` and 0.05 for `kl`.
        threshold_high: Largest divergence where $A > 0$, likewise.
        ratio_high: Highest weight, at least 1. The paper has none or 5, verl 20; a low bound slows rare tokens.

    Returns:
        Loss, ratio before the bound, and True where the token is dropped; of the log-ratio's dtype.

    Raises:
        ValueError: Unknown `divergence`; a threshold or bound outside its range.

    Source:
        Rethinking the trust region in LLM reinforcement learning (arXiv 2602.04879, the binary approximations);
        thresholds as in the authors' scripts for verl.

    Examples:
        >>> logprobs, d = torch.tensor([[-0.1, -5.0]]), torch.tensor([[0.5, 2.0]])
        >>> dppo_surrogate(logprobs, d, torch.tensor([1.0])).clipped
        tensor([[ True, False]])
    """
    default = 0.15 if divergence == "tv" else 0.05
    low, high = (default if threshold is None else threshold for threshold in (threshold_low, threshold_high))
    require(low >= 0, "threshold_low", "a number of at least 0", low)
    require(high >= 0, "threshold_high", "a number of at least 0", high)
    require(ratio_high >= 1, "ratio_high", "a number of at least 1", ratio_high)
    d, new = bounded(log_ratio.detach()), at_least_float32(logprobs.detach())
    advantage = per_token(advantages, d)
    distance = _binary_divergence(new - d, new, divergence)
    dropped = (advantage * d > 0) & (distance > by_sign(advantage, high, low))
    ratio = d.exp()
    weight = torch.where(dropped, 0, ratio.clamp(max=ratio_high))
    return surrogate(weighted(logprobs, weight * -advantage), ratio, log_ratio.dtype, clipped=dropped)


def _binary_divergence(old: Tensor, new: Tensor, divergence: str) -> Tensor:
    """Between two coins that show this token or another one, given the token's two log-probabilities."""
    if divergence == "tv":
        return (new.exp() - old.exp()).abs()
    old, new = old.clamp(max=0), new.clamp(max=0)
    rest_old, rest_new = -old.expm1(), -new.expm1()
    return old.exp() * (old - new) + torch.xlogy(rest_old, rest_old) - torch.xlogy(rest_old, rest_new)
