"""What to log of a policy's update.

Nothing here has a gradient; where there is nothing to measure the answer is NaN.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._logprobs.kl import kl_estimate
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import shaped


def mean_or_nan(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of what counts; NaN where nothing does."""
    return torch.where(mask, values, 0).sum() / mask.sum()


@shaped
def clip_fraction(
    clipped: Bool[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, ""]:
    r"""The share of tokens that a clip leaves without gradient.

    $$\frac{\#\{i, t : m_{it} \wedge c_{it}\}}{\#\{i, t : m_{it}\}}$$

    Args:
        clipped: $c$, such as a `Surrogate`'s.
        mask: True where a token counts.

    Returns:
        A float32 share in [0, 1]; NaN without a token.

    Source:
        PPO (arXiv 1707.06347, section 3).

    Examples:
        >>> clip_fraction(torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]]))
        tensor(0.5000)
    """
    return mean_or_nan(clipped.float(), mask)


@shaped
def approximate_kl(
    log_ratio: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, ""]:
    r"""How far the policy has moved from the one that sampled: an estimate of KL(old, new), in nats per token.

    $$\frac{1}{\sum m_{it}} \sum_{i,t} m_{it} \left(e^{d_{it}} - 1 - d_{it}\right), \qquad
    d_{it} = \log \frac{\pi(y_{it})}{\pi_\text{old}(y_{it})}$$

    The samples come from the OLD policy, so the divergence whose expectation they give is the one from the old to the
    new. This is `kl_estimate(old_logprobs, logprobs)` with `k3`, averaged.

    Args:
        log_ratio: $d$, as from `log_ratio`; clamped to +-20 nats.
        mask: True where a token counts.

    Returns:
        A detached mean of at least 0, of the log-ratio's dtype; NaN without a token.

    Source:
        J. Schulman, "Approximating KL divergence" (2020), estimator k3.

    Examples:
        >>> approximate_kl(torch.tensor([[0.5, 0.0]]), torch.tensor([[True, True]]))
        tensor(0.0744)
    """
    d = at_least_float32(log_ratio.detach())
    return rounded(mean_or_nan(kl_estimate(torch.zeros_like(d), d), mask), log_ratio.dtype)


@shaped
def effective_sample_size(
    log_ratio: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, ""]:
    r"""Of the tokens, the share that would be as good a sample if it came from the policy itself.

    $$\frac{(\sum w_{it})^2}{n \sum w_{it}^2}, \qquad w_{it} = e^{d_{it}}$$

    over the $n$ tokens of the mask: 1 where all weights are one, $1/n$ where one outweighs the rest.

    Args:
        log_ratio: $d$, as from `log_ratio`, of tokens or, in one column, of sequences.
        mask: True where a token counts.

    Returns:
        A detached share in [0, 1], of the log-ratio's dtype; NaN without a token. A shift of all log-ratios changes
        nothing, so none is too large.

    Source:
        Kong (1992); the standard diagnostic of importance sampling.

    Examples:
        >>> effective_sample_size(torch.tensor([[0.0, 0.0, 0.6931]]), torch.tensor([[True, True, True]]))
        tensor(0.8889)
    """
    weights = torch.where(mask, at_least_float32(log_ratio.detach()), -torch.inf).flatten().softmax(0)
    share = 1 / (mask.sum() * weights.square().sum())
    return torch.where(mask.any(), share.clamp(max=1), torch.nan).to(log_ratio.dtype)
