"""The papers' recipes for a clipped or gated ratio per token."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._masking import aggregate, aggregate_denominator
from clipo_ops._surrogates.clipped import clipped_surrogate, fipo_surrogate, sapo_surrogate
from clipo_ops._typing import shaped


@shaped
def grpo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""GRPO: the clipped surrogate, as a mean over rollouts of means over tokens.

    $$\frac{1}{D} \sum_i \frac{1}{|y_i|} \sum_t m_{it}\, \ell_{it}, \qquad D = \#\{i : |y_i| > 0\}$$

    with $\ell$ from `clipped_surrogate`. The paper adds `kl_estimate`, reduced likewise, with a weight of 0.04.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        DeepSeekMath (arXiv 2402.03300, eq. 3).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> grpo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-1.1052)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
    return aggregate(loss, mask, mode="seq-mean-token-mean", denominator=denominator)


@shaped
def dr_grpo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    max_length: int | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""Dr. GRPO: the clipped surrogate, as a sum over tokens divided by a constant, without a bias by length.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \#\{i : |y_i| > 0\} \cdot T_{\max}$$

    with $\ell$ from `clipped_surrogate`. Its advantages are `grpo_advantages(..., scale="none")`. $D$ counts rollouts
    that have a valid token, as verl does; TRL counts all.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        max_length: $T_{\max}$, the longest response allowed, in tokens; needed without a denominator.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Understanding R1-Zero-like training (arXiv 2503.20783, section 3.2) and its authors' code.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> dr_grpo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask, max_length=10)
        tensor(-0.2210)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
    if denominator is None:
        denominator = aggregate_denominator(mask, mode="seq-mean-token-sum-norm", max_length=max_length)
    return aggregate(loss, mask, mode="seq-mean-token-sum-norm", denominator=denominator)


@shaped
def dapo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""DAPO: the clipped surrogate with a higher upper bound, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \sum_i |y_i|$$

    with $\ell$ from `clipped_surrogate`. DAPO's dynamic sampling and overlong penalty come before: they choose
    prompts and change rewards.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        DAPO (arXiv 2503.14476, eq. 8).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> dapo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-1.1052)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)


@shaped
def fipo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    half_life: float = 32.0,
    weight_low: float = 1.0,
    weight_high: float = 1.2,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""FIPO: DAPO with advantages weighted by how the policy has moved on the tokens that follow.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \sum_i |y_i|$$

    with $\ell$ from `fipo_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        half_life: Tokens after which a later token counts half.
        weight_low: Lowest weight.
        weight_high: Highest weight.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        FIPO (arXiv 2603.19835), as `fipo_surrogate`.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> fipo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-1.2738)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = fipo_surrogate(
        ratio, advantages, mask, half_life=half_life, weight_low=weight_low, weight_high=weight_high
    ).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)


@shaped
def sapo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""SAPO: a soft gate on the ratio, as a mean over rollouts of means over tokens.

    $$\frac{1}{D} \sum_i \frac{1}{|y_i|} \sum_t m_{it}\, \ell_{it}, \qquad D = \#\{i : |y_i| > 0\}$$

    with $\ell$ from `sapo_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        temperature_positive: Where the advantage is positive.
        temperature_negative: Where it is negative.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Soft adaptive policy optimization (arXiv 2511.20347), reduction as in verl and TRL.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> sapo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-2.1051)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = sapo_surrogate(
        ratio, advantages, temperature_positive=temperature_positive, temperature_negative=temperature_negative
    ).loss
    return aggregate(loss, mask, mode="seq-mean-token-mean", denominator=denominator)
