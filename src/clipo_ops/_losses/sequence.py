"""The papers' recipes whose ratio is that of the whole response."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._masking import aggregate, sequence_lengths
from clipo_ops._surrogates.clipped import clipped_surrogate
from clipo_ops._surrogates.sequence import geometric_mean_surrogate, vespo_surrogate
from clipo_ops._typing import shaped


@shaped
def gspo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 3e-4,
    epsilon_high: float = 4e-4,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""GSPO: the clipped surrogate of the whole response's ratio, as a mean over rollouts.

    $$\frac{1}{D} \sum_i
    \max\bigl(-s_i A_i,\, -\operatorname{clip}(s_i, 1 - \epsilon_\text{low}, 1 + \epsilon_\text{high})\, A_i\bigr)$$

    with $\log s_i$ from `sequence_log_ratio` and $D$ the rollouts. For an advantage per token (GSPO-token) compose
    `gspo_token_log_ratio` and `clipped_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Group sequence policy optimization (arXiv 2507.18071, eq. 5).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> gspo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.0002)
    """
    loss = _sequence_loss(logprobs, old_logprobs, advantages, mask, epsilon_low, epsilon_high)
    return aggregate(loss, mask.any(1, keepdim=True), mode="seq-mean-token-mean", denominator=denominator)


@shaped
def luspo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 3e-4,
    epsilon_high: float = 4e-4,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""LUSPO: GSPO with every response's loss times its length, so that no length is favoured.

    $$\frac{1}{D} \sum_i |y_i|
    \max\bigl(-s_i A_i,\, -\operatorname{clip}(s_i, 1 - \epsilon_\text{low}, 1 + \epsilon_\text{high})\, A_i\bigr)$$

    with $\log s_i$ from `sequence_log_ratio` and $D$ the rollouts. The same loss at every token makes the token sum of
    `seq-mean-token-sum` the factor $|y_i|$.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Length-unbiased sequence policy optimization (arXiv 2602.05261).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> luspo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.5004)
    """
    loss = _sequence_loss(logprobs, old_logprobs, advantages, mask, epsilon_low, epsilon_high)
    lengths = sequence_lengths(mask).unsqueeze(1)
    return aggregate(lengths * loss, lengths > 0, mode="seq-mean-token-sum", denominator=denominator)


@shaped
def gmpo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""GMPO: the geometric mean of a response's clipped ratios, as a mean over rollouts.

    $$\frac{1}{D} \sum_i \ell_i$$

    with $\ell$ from `geometric_mean_surrogate` and $D$ the rollouts.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        clip_low: In nats: a ratio may fall to exp(-clip_low).
        clip_high: In nats: a ratio may rise to exp(clip_high).
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Geometric-mean policy optimization (arXiv 2507.20673).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> gmpo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(-0.1107)
    """
    ratio = log_ratio(logprobs, old_logprobs, mask)
    loss = geometric_mean_surrogate(ratio, advantages, mask, clip_low=clip_low, clip_high=clip_high).loss
    loss = loss.narrow(1, 0, min(1, loss.shape[1]))  # the same at every token
    some = mask.any(1, keepdim=True).expand_as(loss)
    return aggregate(loss, some, mode="seq-mean-token-mean", denominator=denominator)


@shaped
def vespo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""VESPO: REINFORCE, weighted by a smooth bump of the response's ratio, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} \ell_{it}$$

    with $\ell$ from `vespo_surrogate` and $D$ the valid tokens.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; NaN where they are not known.
        advantages: One per rollout or one per token; treated as constants.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
        k_positive: $k$ where the advantage is at least 0.
        lambda_positive: $\lambda$ there.
        k_negative: $k$ where it is below 0.
        lambda_negative: $\lambda$ there.
        denominator: What the sum is divided by, as in `aggregate`; of this batch alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        VESPO (arXiv 2602.10693).

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> vespo_loss(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), mask)
        tensor(0.0549)
    """
    ratio = log_ratio(logprobs.detach(), old_logprobs, mask)
    result = vespo_surrogate(
        logprobs,
        ratio,
        advantages,
        mask,
        k_positive=k_positive,
        lambda_positive=lambda_positive,
        k_negative=k_negative,
        lambda_negative=lambda_negative,
    )
    return aggregate(result.loss, mask, mode="token-mean", denominator=denominator)


def _sequence_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """The clipped surrogate of the whole response's ratio, as one column."""
    total = log_ratio(logprobs, old_logprobs, mask).sum(1, keepdim=True)  # it is 0 under the mask
    ratio = total / sequence_lengths(mask).clamp(min=1).unsqueeze(1)  # `sequence_log_ratio`
    return clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
