"""The papers' recipes per token: a log-ratio, a surrogate and a reduction, with the papers' defaults."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._masking import aggregate, aggregate_denominator
from clipo_ops._surrogates.clipped import clipped_surrogate, sapo_surrogate
from clipo_ops._surrogates.weighted import cispo_surrogate
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

    $$\frac{1}{D} \sum_i \frac{1}{|y_i|} \sum_t \ell_{it}$$

    with $\ell$ from `clipped_surrogate` and $D$ the rollouts. The paper's KL term, of weight .04, is
    `aggregate(kl_estimate(...), mask, mode="seq-mean-token-mean")`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> grpo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.0500)
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
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
    r"""Dr. GRPO: the clipped surrogate, as a sum over tokens by a constant: no bias by length.

    $$\frac{1}{D} \sum_{i,t} \ell_{it}, \qquad D = \#\{i\} \cdot T_{\max}$$

    with $\ell$ from `clipped_surrogate`. Its advantages are `grpo_advantages(..., scale="none")`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        max_length: $T_{\max}$, tokens a response may have at most; needed without a denominator.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Understanding R1-Zero-like training (arXiv 2503.20783, section 3.1).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> dr_grpo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask, max_length=10)
        tensor(-0.0600)
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
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

    $$\frac{1}{D} \sum_{i,t} \ell_{it}$$

    with $\ell$ from `clipped_surrogate` and $D$ the valid tokens. DAPO's dynamic sampling and overlong penalty come
    before: they choose prompts and change rewards.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        DAPO (arXiv 2503.14476, eq. 8).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> dapo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.4267)
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
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
    r"""CISPO: REINFORCE, weighted by a clipped ratio, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} \ell_{it}$$

    with $\ell$ from `cispo_surrogate` and $D$ the valid tokens.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        ratio_low: Lowest weight.
        ratio_high: Highest weight.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        MiniMax-M1 (arXiv 2506.13585, eq. 4).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> cispo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(1.0991)
    """
    ratio = log_ratio(logprobs.detach(), old_logprobs, mask)
    loss = cispo_surrogate(logprobs, ratio, advantages, ratio_low=ratio_low, ratio_high=ratio_high).loss
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

    $$\frac{1}{D} \sum_i \frac{1}{|y_i|} \sum_t \ell_{it}$$

    with $\ell$ from `sapo_surrogate` and $D$ the rollouts.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        temperature_positive: Where the advantage is above 0.
        temperature_negative: Elsewhere.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Soft adaptive policy optimization (arXiv 2511.20347).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> sapo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.2043)
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    result = sapo_surrogate(
        ratio, advantages, temperature_positive=temperature_positive, temperature_negative=temperature_negative
    )
    return aggregate(result.loss, mask, mode="seq-mean-token-mean", denominator=denominator)
