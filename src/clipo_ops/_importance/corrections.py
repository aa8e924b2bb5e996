"""Weights and masks for samples of another engine or an older policy."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._masking import sequence_mean, sequence_sum
from clipo_ops._numerics import EXP_LIMIT
from clipo_ops._typing import require, shaped

Level = Literal["token", "sequence", "geometric"]


@shaped
def truncated_importance_weights(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    cap: float = 2.0,
    level: Level = "token",
) -> Float[Tensor, "rollouts tokens"]:
    r"""Truncated importance sampling: the ratio of trainer to rollout engine, bounded from above.

    $$w_{it} = \min(e^{c_{it}},\, C), \qquad d_{it} = \log \pi_\text{old}(y_{it}) - \log \pi_\text{rollout}(y_{it})$$

    | level | $c_{it}$ |
    |---|---|
    | `token` | $d_{it}$ |
    | `sequence` | $\sum_t m_{it} d_{it}$: the product of the ratios, the probability ratio of the whole response |
    | `geometric` | $\sum_t m_{it} d_{it} / \sum_t m_{it}$: their geometric mean, which does not grow with the length |

    Multiply a surrogate's loss by it.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            ratio is then exactly 1.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        cap: $C$, above 0.
        level: What the ratio is of, as above.

    Returns:
        Weights in [0, cap] per token, the same for all tokens of a response but for the level `token`; there 1 (or the
        cap, if lower) under a False mask. Of the dtype of `old_logprobs`. DETACHED.

    Raises:
        ValueError: `cap` not above 0; unknown `level`.

    Source:
        Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025); the level
        `sequence` as in TRL and verl.

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -3.0, float("nan")]])
        >>> truncated_importance_weights(old, rollout, torch.tensor([[True, True, True]]))
        tensor([[1.6487, 2.0000, 1.0000]])
    """
    require(cap > 0, "cap", "a number above 0", cap)
    return _weights(old_logprobs, rollout_logprobs, mask, level).clamp(max=cap).to(old_logprobs.dtype)


@shaped
def masked_importance_weights(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    low: float = 0.5,
    high: float = 2.0,
    level: Level = "token",
) -> Float[Tensor, "rollouts tokens"]:
    r"""Masked importance sampling: the ratio of trainer to rollout engine, and 0 where it is out of bounds.

    $$w_{it} = e^{c_{it}}\, 1[\text{low} \le e^{c_{it}} \le \text{high}]$$

    with $c$ as in `truncated_importance_weights`. Multiply a surrogate's loss by it.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            ratio is then exactly 1.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        low: Lowest ratio that counts, in [0, 1].
        high: Highest ratio that counts, at least 1.
        level: `"token"`, `"sequence"` or `"geometric"`, as in `truncated_importance_weights`.

    Returns:
        Weights per token, 0 or in [low, high]; at the level `token` 1 under a False mask. Of the dtype of
        `old_logprobs`. DETACHED.

    Raises:
        ValueError: A bound outside its range; unknown `level`.

    Source:
        The level `token` is IcePop (Ring-1T, arXiv 2510.18855); `sequence` is masked importance sampling as in TRL.

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -3.0, float("nan")]])
        >>> masked_importance_weights(old, rollout, torch.tensor([[True, True, True]]))
        tensor([[1.6487, 0.0000, 1.0000]])
    """
    require(0 <= low <= 1, "low", "a number in [0, 1]", low)
    require(high >= 1, "high", "a number of at least 1", high)
    weights = _weights(old_logprobs, rollout_logprobs, mask, level)
    return torch.where((weights >= low) & (weights <= high), weights, 0).to(old_logprobs.dtype)


@shaped
def off_policy_sequence_mask(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    threshold: float = 0.5,
) -> Bool[Tensor, " rollouts"]:
    r"""Which responses to keep: not those of a negative advantage that the policy has moved away from.

    $$\text{keep}_i = A_i \ge 0 \;\lor\; \frac{1}{|y_i|} \sum_t m_{it} \bigl(\log \pi_\text{old}(y_{it}) -
    \log \pi(y_{it})\bigr) \le \delta$$

    Keep a response by `mask & keep.unsqueeze(1)`, with the denominator of `mask`: the others then count as 0.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under what they were sampled by; the rollout engine's if there are any. NaN where they
            are not known: the difference is then 0.
        advantages: $A$, one per rollout.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        threshold: $\delta$, at least 0, in nats per token.

    Returns:
        True where a response is to be kept, and for one without a valid token.

    Raises:
        ValueError: `threshold` below 0.

    Source:
        DeepSeek-V3.2 (arXiv 2512.02556, eq. 9).

    Examples:
        >>> logprobs, old_logprobs = torch.tensor([[-3.0], [-3.0]]), torch.tensor([[-1.0], [-1.0]])
        >>> off_policy_sequence_mask(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), torch.tensor([[True], [True]]))
        tensor([ True, False])
    """
    require(threshold >= 0, "threshold", "a number of at least 0", threshold)
    difference = log_ratio(logprobs.detach(), old_logprobs.detach(), mask, limit=EXP_LIMIT)
    return (advantages >= 0) | (sequence_mean(difference, mask) >= -threshold)


def _weights(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, level: str) -> Tensor:
    """Unbounded ratios per token, finite in float32 and detached."""
    exponent = log_ratio(old_logprobs.detach(), rollout_logprobs.detach(), mask, limit=EXP_LIMIT)
    if level != "token":
        reduce = sequence_sum if level == "sequence" else sequence_mean
        exponent = reduce(exponent, mask).clamp(-EXP_LIMIT, EXP_LIMIT).unsqueeze(1).expand_as(exponent)
    return exponent.exp()
