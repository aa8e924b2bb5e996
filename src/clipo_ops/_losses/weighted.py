"""The papers' recipes for a constant weight on each token's log-probability, as means over all tokens."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._masking import aggregate
from clipo_ops._numerics import at_least_float32
from clipo_ops._surrogates.weighted import cispo_surrogate, dis_surrogate, policy_gradient_surrogate
from clipo_ops._typing import shaped


@shaped
def gpg_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""GPG: REINFORCE without a ratio, as a mean over all tokens.

    $$-\frac{1}{D} \sum_{i,t} m_{it}\, A_{it} \log \pi(y_{it}), \qquad D = \sum_i |y_i|$$

    For one update per batch. Its advantages are `gpg_advantages`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        advantages: $A$.
        mask: $m$.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar; float32 for half precision.

    Source:
        GPG (arXiv 2504.02546), reduction as in verl.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> gpg_loss(logprobs, torch.tensor([1.0]), mask)
        tensor(1.5000)
    """
    loss = policy_gradient_surrogate(at_least_float32(logprobs), advantages).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)


@shaped
def cispo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    ratio_low: float = 0.0,
    ratio_high: float = 5.0,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""CISPO: REINFORCE weighted by a clipped ratio, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \sum_i |y_i|$$

    with $\ell$ from `cispo_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        ratio_low: Lowest weight.
        ratio_high: Highest weight.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        MiniMax-M1 (arXiv 2506.13585, eq. 4).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> cispo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(1.6578)
    """
    ratio = log_ratio(logprobs.detach(), old_logprobs.detach(), mask)
    loss = cispo_surrogate(logprobs, ratio, advantages, ratio_low=ratio_low, ratio_high=ratio_high).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)


@shaped
def dis_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.3,
    epsilon_high: float = 5.0,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""GLM-5's double-sided importance sampling, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \sum_i |y_i|$$

    with $\ell$ from `dis_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        rollout_logprobs: The same by the engine that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        epsilon_low: Ratios from 1 - epsilon_low down are dropped.
        epsilon_high: Ratios from 1 + epsilon_high up are dropped.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        GLM-5 (arXiv 2602.15763, eq. 3); defaults as in `dis_surrogate`.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> dis_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(1.6578)
    """
    ratio = log_ratio(logprobs.detach(), rollout_logprobs.detach(), mask)
    loss = dis_surrogate(logprobs, ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)
