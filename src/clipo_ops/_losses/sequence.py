"""The papers' recipes for the ratio of the whole response."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio, sequence_log_ratio
from clipo_ops._masking import aggregate, sequence_lengths
from clipo_ops._surrogates.clipped import clipped_surrogate
from clipo_ops._surrogates.sequence import dro_surrogate, geometric_mean_surrogate, topr_surrogate, vespo_surrogate
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
    \max\bigl(-s_i A_i,\, -\operatorname{clip}(s_i, 1 - \epsilon_\text{low}, 1 + \epsilon_\text{high})\, A_i\bigr),
    \qquad D = \#\{i : |y_i| > 0\}$$

    with $\log s_i$ from `sequence_log_ratio`. For an advantage per token (GSPO-token) compose
    `gspo_token_log_ratio` and `clipped_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$, one per rollout.
        mask: $m$.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Group sequence policy optimization (arXiv 2507.18071, eq. 5).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> gspo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-1.0004)
    """
    ratio = sequence_log_ratio(log_ratio(logprobs, old_logprobs.detach(), mask), mask).unsqueeze(1)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
    return aggregate(loss, mask.any(1, keepdim=True), mode="seq-mean-token-mean", denominator=denominator)


@shaped
def luspo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    epsilon_low: float = 2e-3,
    epsilon_high: float = 2.5e-3,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""LUSPO: GSPO with every response's loss times its length, so that no length is favoured.

    $$\frac{1}{D} \sum_i |y_i|
    \max\bigl(-s_i A_i,\, -\operatorname{clip}(s_i, 1 - \epsilon_\text{low}, 1 + \epsilon_\text{high})\, A_i\bigr),
    \qquad D = \#\{i : |y_i| > 0\}$$

    with $\log s_i$ from `sequence_log_ratio`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$, one per rollout.
        mask: $m$.
        epsilon_low: The ratio may fall to 1 - epsilon_low.
        epsilon_high: The ratio may rise to 1 + epsilon_high.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Length-unbiased sequence policy optimization (arXiv 2602.05261), formula and bounds as in TRL and its paper
        index, which takes the bounds from section 5.1.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> luspo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-2.0050)
    """
    ratio = sequence_log_ratio(log_ratio(logprobs, old_logprobs.detach(), mask), mask).unsqueeze(1)
    loss = clipped_surrogate(ratio, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high).loss
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

    $$\frac{1}{D} \sum_i \ell_i, \qquad D = \#\{i : |y_i| > 0\}$$

    with $\ell$ from `geometric_mean_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$, one per rollout.
        mask: $m$.
        clip_low: In nats: a ratio may fall to exp(-clip_low).
        clip_high: In nats: a ratio may rise to exp(clip_high).
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Geometric-mean policy optimization (arXiv 2507.20673).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> gmpo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(-1.1052)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = geometric_mean_surrogate(ratio, advantages, mask, clip_low=clip_low, clip_high=clip_high).loss
    return aggregate(loss, mask, mode="seq-mean-token-mean", denominator=denominator)


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
    importance_weights: Float[Tensor, "rollouts tokens"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""VESPO: REINFORCE weighted by a smooth bump of the response's ratio, as a mean over all tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \sum_i |y_i|$$

    with $\ell$ from `vespo_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        k_positive: $k$ where the advantage is at least 0.
        lambda_positive: $\lambda$ there.
        k_negative: $k$ where it is negative.
        lambda_negative: $\lambda$ there.
        importance_weights: From the rollout engine to the old policy, as in `vespo_surrogate`.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        VESPO (arXiv 2602.10693) and its authors' code.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> vespo_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(1.1517)
    """
    loss = vespo_surrogate(
        logprobs,
        log_ratio(logprobs.detach(), old_logprobs.detach(), mask),
        advantages,
        mask,
        k_positive=k_positive,
        lambda_positive=lambda_positive,
        k_negative=k_negative,
        lambda_negative=lambda_negative,
        importance_weights=importance_weights,
    ).loss
    return aggregate(loss, mask, mode="token-mean", denominator=denominator)


@shaped
def topr_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""TOPR: imitates good responses and tapers bad ones by their ratio, as a mean over rollouts of sums over tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \#\{i : |y_i| > 0\}$$

    with $\ell$ from `topr_surrogate`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Tapered off-policy REINFORCE (arXiv 2503.14286, eq. 8), as in `topr_surrogate`.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> topr_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(3.)
    """
    ratio = log_ratio(logprobs.detach(), old_logprobs.detach(), mask)
    loss = topr_surrogate(logprobs, ratio, advantages, mask).loss
    return aggregate(loss, mask, mode="seq-mean-token-sum", denominator=denominator)


@shaped
def dro_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    tau: float = 0.1,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""Kimi k1.5's loss, also called DRO, as a mean over rollouts of sums over tokens.

    $$\frac{1}{D} \sum_{i,t} m_{it}\, \ell_{it}, \qquad D = \#\{i : |y_i| > 0\}$$

    with $\ell$ from `dro_surrogate` at the level `sequence`.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; a constant.
        advantages: $A$.
        mask: $m$.
        tau: $\tau$, weight of the penalty; 0.1 is ROLL's.
        denominator: $D$; counted over this batch when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype.

    Source:
        Kimi k1.5 (arXiv 2501.12599, eq. 3). The paper resets the optimizer in every iteration.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
        >>> dro_loss(logprobs, logprobs - 0.1, torch.tensor([1.0]), mask)
        tensor(3.0020)
    """
    ratio = log_ratio(logprobs, old_logprobs.detach(), mask)
    loss = dro_surrogate(logprobs, ratio, advantages, mask, tau=tau).loss
    return aggregate(loss, mask, mode="seq-mean-token-sum", denominator=denominator)
