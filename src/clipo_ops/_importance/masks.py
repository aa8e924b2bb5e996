"""Masks that leave out samples too far from the policy.

Each returns the tokens to keep, a subset of `mask`. Combine them by `&`.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.ratios import log_ratio
from clipo_ops._logprobs.kl import kl_estimate
from clipo_ops._masking import sequence_mean, sequence_sum
from clipo_ops._numerics import EXP_LIMIT
from clipo_ops._typing import require, shaped

Level = Literal["token", "sequence", "geometric"]


def importance_ratio(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, level: str) -> Tensor:
    """Ratios per token of trainer to rollout engine, finite in float32 and detached; 1 at unknown log-probabilities."""
    exponent = log_ratio(old_logprobs.detach(), rollout_logprobs.detach(), mask, limit=EXP_LIMIT)
    if level != "token":
        reduce = sequence_sum if level == "sequence" else sequence_mean
        exponent = reduce(exponent, mask).clamp(-EXP_LIMIT, EXP_LIMIT).unsqueeze(1).expand_as(exponent)
    return exponent.exp()


@shaped
def importance_ratio_mask(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    low: float,
    high: float,
    level: Level,
) -> Bool[Tensor, "rollouts tokens"]:
    r"""The tokens whose importance ratio, or whose response's, lies within bounds.

    $$\text{keep}_{it} = m_{it} \land \text{low} \le e^{c_{it}} \le \text{high}$$

    with $c$, the log-ratio of trainer to rollout engine at a level, as in `truncated_importance_weights`. Minus $c$ is
    the estimate k1 of KL(rollout, old), so this is rejection by k1. A gate may be of another level than the weights:
    this mask at the level `geometric` with token weights, `truncated_importance_weights(...) * keep`, is
    Geo-RS-Token-TIS, and with `cap=inf` it is OpenRLHF's `seq-mask-tis`.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            ratio is then exactly 1.
        mask: $m$, True where a token counts.
        low: Lowest ratio that is kept, in [0, 1].
        high: Highest ratio that is kept, at least 1. verl's presets have 0.999 and 1.001 for `geometric`, OpenRLHF
            0.5 and 5.
        level: `"token"`, `"sequence"` or `"geometric"`, as in `truncated_importance_weights`.

    Returns:
        True where a token is to be kept, False under a False mask.

    Raises:
        ValueError: A bound outside its range; unknown `level`.

    Source:
        Liu and Li, "When speed kills stability", part 3 (2025): Seq-MIS and Geo-RS; as in verl (`token_k1`,
        `seq_sum_k1`, `seq_mean_k1`) and OpenRLHF.

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]]), torch.tensor([[-1.1, -0.9], [-1.1, -1.1]])
        >>> mask = torch.ones(2, 2, dtype=torch.bool)
        >>> importance_ratio_mask(old, rollout, mask, low=0.99, high=1.01, level="geometric")
        tensor([[ True,  True],
                [False, False]])
    """
    require(0 <= low <= 1, "low", "a number in [0, 1]", low)
    require(high >= 1, "high", "a number of at least 1", high)
    ratio = importance_ratio(old_logprobs, rollout_logprobs, mask, level)
    return mask & (ratio >= low) & (ratio <= high)


@shaped
def divergence_mask(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    threshold: float,
    estimator: Literal["k2", "k3"] = "k3",
    level: Literal["token", "sequence-sum", "sequence-mean"] = "sequence-mean",
) -> Bool[Tensor, "rollouts tokens"]:
    r"""The tokens where trainer and rollout engine differ by no more than a threshold, at a token or over a response.

    $$\text{keep}_{it} = m_{it} \land k_{it} \le \delta, \qquad k_{it} \text{ an estimate of }
    \text{KL}(\pi_\text{rollout}, \pi_\text{old})$$

    or its sum or mean over the response's tokens. Unlike those of a ratio, the estimates `k2` and `k3` cannot cancel
    over a response. Rejection by `k1` is `importance_ratio_mask`, rejection by a response's largest estimate is
    `veto_mask` of the level `token`.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            estimate is then 0.
        mask: $m$, True where a token counts.
        threshold: $\delta$, at least 0, in nats.
        estimator: As in `kl_estimate`.
        level: What is compared with the threshold.

    Returns:
        True where a token is to be kept, False under a False mask.

    Raises:
        ValueError: `threshold` below 0; unknown `estimator` or `level`.

    Source:
        As in verl (`token_k2` to `seq_mean_k3`), which has no default.

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]]), torch.tensor([[-1.1, -0.9], [-1.0, -2.0]])
        >>> divergence_mask(old, rollout, torch.ones(2, 2, dtype=torch.bool), threshold=0.01)
        tensor([[ True,  True],
                [False, False]])
    """
    require(threshold >= 0, "threshold", "a number of at least 0", threshold)
    d = log_ratio(old_logprobs.detach(), rollout_logprobs.detach(), mask)
    divergence = kl_estimate(torch.zeros_like(d), d, estimator=estimator)
    if level != "token":
        reduce = sequence_sum if level == "sequence-sum" else sequence_mean
        divergence = reduce(divergence, mask).unsqueeze(1)
    return mask & (divergence <= threshold)


@shaped
def veto_mask(
    keep: Bool[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Bool[Tensor, "rollouts tokens"]:
    r"""The tokens of responses of which every token is kept: one that is not vetoes its whole response.

    $$\text{keep}'_{it} = m_{it} \land \forall s : m_{is} \Rightarrow \text{keep}_{is}$$

    For a token that the trainer finds catastrophically unlikely:
    `veto_mask(importance_ratio_mask(old, rollout, mask, low=1e-4, high=inf, level="token"), mask)`.

    Args:
        keep: As from `importance_ratio_mask`, `divergence_mask` or any criterion of yours.
        mask: $m$, True where a token counts.

    Returns:
        True where a token is to be kept, False under a False mask.

    Source:
        As in verl: `rollout_token_veto_threshold` of its older releases (1e-4 in their presets), `seq_max_k2` and
        `seq_max_k3` of the newer ones.

    Examples:
        >>> mask = torch.tensor([[True, True, False], [True, True, True]])
        >>> veto_mask(torch.tensor([[True, True, False], [True, True, False]]), mask)
        tensor([[ True,  True, False],
                [False, False, False]])
    """
    return mask & (keep | mask.logical_not()).all(1, keepdim=True)


@shaped
def off_policy_sequence_mask(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    threshold: float = 0.5,
) -> Bool[Tensor, "rollouts tokens"]:
    r"""The tokens of all responses but those of a negative advantage that the policy has moved away from.

    $$\text{keep}_{it} = m_{it} \land \Bigl(A_i \ge 0 \lor
    \frac{1}{|y_i|} \sum_t m_{it} \log \frac{\pi_\text{old}(y_{it})}{\pi(y_{it})} \le \delta\Bigr)$$

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; the rollout engine's if there are any. NaN where
            they are not known: the difference is then 0.
        advantages: $A$, one per rollout.
        mask: $m$, True where a token counts.
        threshold: $\delta$, at least 0, in nats per token; 0.5 is TRL's example.

    Returns:
        True where a token is to be kept, False under a False mask.

    Raises:
        ValueError: `threshold` below 0.

    Source:
        DeepSeek-V3.2 (arXiv 2512.02556, eq. 9).

    Examples:
        >>> logprobs, old_logprobs = torch.tensor([[-3.0], [-3.0]]), torch.tensor([[-1.0], [-1.0]])
        >>> off_policy_sequence_mask(logprobs, old_logprobs, torch.tensor([1.0, -1.0]), torch.tensor([[True], [True]]))
        tensor([[ True],
                [False]])
    """
    require(threshold >= 0, "threshold", "a number of at least 0", threshold)
    d = log_ratio(logprobs.detach(), old_logprobs.detach(), mask, limit=EXP_LIMIT)
    keep = (advantages >= 0) | (-sequence_mean(d, mask) <= threshold)
    return mask & keep.unsqueeze(1)


@shaped
def second_moment_mask(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    threshold: float = 0.04,
) -> Bool[Tensor, "rollouts tokens"]:
    r"""M2PO's mask: of the tokens that a clip may touch, all but those of the largest squared log-ratio.

    $$S = \{i, t : m_{it} \land A_i d_{it} > 0\}, \qquad d_{it} = \log \frac{\pi(y_{it})}{\pi_\text{old}(y_{it})}$$

    are the tokens that have already moved where their advantage pushes them. The largest $d^2$ in $S$ are masked, until
    the mean of the remaining ones is at most $\tau$; all other tokens are kept. It takes the place of the clip: use it
    with `clipped_surrogate(d, advantages, epsilon_low=1, epsilon_high=inf)`. The mean is that of the batch given: give
    it a whole mini-batch.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them. NaN where they are not known: $d$ is then 0.
        advantages: $A$, one per rollout.
        mask: $m$, True where a token counts.
        threshold: $\tau$, at least 0, in squared nats.

    Returns:
        True where a token is to be kept, False under a False mask.

    Raises:
        ValueError: `threshold` below 0.

    Source:
        M2PO (arXiv 2510.01161, algorithm 1), formula as in two implementations of it; the set $S$ and 0.04 as in the
        authors' code, which turns the mask into a clip at the largest $\lvert d \rvert$ that is kept.

    Examples:
        >>> logprobs, advantages = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([1.0])
        >>> old_logprobs, mask = torch.tensor([[-1.1, -1.5, -0.2]]), torch.tensor([[True, True, True]])
        >>> second_moment_mask(logprobs, old_logprobs, advantages, mask)
        tensor([[ True, False,  True]])
    """
    require(threshold >= 0, "threshold", "a number of at least 0", threshold)
    d = log_ratio(logprobs.detach(), old_logprobs.detach(), mask, limit=EXP_LIMIT)
    pushed = d * advantages.unsqueeze(1) > 0
    squares, order = torch.where(pushed, d.square(), torch.inf).flatten().sort()
    means = squares.cumsum(0) / torch.arange(1, len(squares) + 1, device=d.device)  # of the k smallest, for every k
    dropped = torch.zeros_like(mask).flatten().scatter(0, order, means > threshold).view_as(mask)
    return mask & (pushed & dropped).logical_not()
