"""Surrogates of whole responses: one value per rollout, placed at every token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._masking import sequence_lengths, sequence_sum
from clipo_ops._numerics import EXP_LIMIT, at_least_float32
from clipo_ops._surrogates.result import Surrogate, clamp_by_sign, per_token, surrogate, with_slope
from clipo_ops._typing import require, shaped


@shaped
def geometric_mean_surrogate(
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
) -> Surrogate:
    r"""GMPO: the geometric mean of a response's clipped ratios, which one outlier does not rule.

    $$\ell_i = -A_i \exp\Bigl(\frac{1}{|y_i|} \sum_t m_{it}\, c_{it}\Bigr), \qquad
    c_{it} = \begin{cases} \min(d_{it}, \text{high}) & A_i > 0 \\ \max(d_{it}, -\text{low}) & A_i < 0 \end{cases}$$

    at every token of the response, so that `seq-mean-token-mean` reduces it to the paper's objective. At ratio 1 the
    gradient of that is the one of $-A_i \log \pi$, reduced the same way.

    Args:
        log_ratio: $d$, as from `log_ratio`. Beyond +-80 it is clamped.
        advantages: $A$, one per rollout; treated as a constant.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        clip_low: At least 0, in nats: a ratio may fall to exp(-clip_low).
        clip_high: At least 0, in nats: a ratio may rise to exp(clip_high).

    Returns:
        Loss and ratio (the geometric mean), the same at all tokens of a response, as views of one value; and where a
        token is clipped. Of the log-ratio's dtype, computed in at least float32.

    Raises:
        ValueError: A bound below 0.

    Source:
        Geometric-mean policy optimization (arXiv 2507.20673).

    Examples:
        >>> d, mask = torch.tensor([[0.1, 9.0]]), torch.tensor([[True, True]])
        >>> geometric_mean_surrogate(d, torch.tensor([1.0]), mask).loss
        tensor([[-1.2840, -1.2840]])
    """
    require(clip_low >= 0, "clip_low", "a number of at least 0", clip_low)
    require(clip_high >= 0, "clip_high", "a number of at least 0", clip_high)
    d = at_least_float32(log_ratio)
    advantage = per_token(advantages, d)
    bounded = clamp_by_sign(d.detach(), advantage, low=-clip_low, high=clip_high, cap=EXP_LIMIT)
    bound = torch.where(mask, (d.detach() - bounded).sign().abs_(), 0)  # 0 or 1: Inductor on a CPU is slow with bools
    counted = with_slope(d, torch.where(mask, bounded, 0), torch.where(mask, 1 - bound, 0))
    ratio = (counted.sum(1, keepdim=True) / sequence_lengths(mask).clamp(min=1).unsqueeze(1)).exp()
    loss = (-advantage * ratio).expand_as(d)
    counting = torch.where(mask, log_ratio, 0)
    return surrogate(loss, ratio.detach().expand_as(d), advantages, counting, clipped=bound.bool())


@shaped
def vespo_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
) -> Surrogate:
    r"""VESPO: REINFORCE, weighted by a smooth bump of the whole response's ratio.

    $$\ell_{it} = -\operatorname{sg}[\phi(w_i)]\, A_{it} \log \pi(y_{it}), \qquad
    \phi(w) = w^k e^{\lambda (1 - w)}, \qquad w_i = \exp \sum_t m_{it}\, d_{it}$$

    with $k$ and $\lambda$ by the sign of $A_{it}$. At ratio 1 the gradient is that of $-A_{it} \log \pi$.

    Args:
        logprobs: $\log \pi$, the log-probabilities of the response tokens under the policy.
        log_ratio: $d$, as from `log_ratio`; treated as a constant. Taken against the log-probabilities of the rollout
            engine it corrects for that one too.
        advantages: $A$, one per rollout or one per token; treated as a constant.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        k_positive: $k$ where $A \ge 0$, at least 0: the higher, the less a response of low ratio counts.
        lambda_positive: $\lambda$ where $A \ge 0$, above 0: the higher, the less a response of high ratio counts.
        k_negative: $k$ where $A < 0$.
        lambda_negative: $\lambda$ where $A < 0$.

    Returns:
        Loss per token; ratio $w$, the same at all tokens of a response, with its logarithm clamped to +-80; clip
        indicator (False). Of the log-ratio's dtype, computed in at least float32.

    Raises:
        ValueError: A $k$ below 0 or a $\lambda$ that is not above 0.

    Source:
        VESPO (arXiv 2602.10693).

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -1.0]]), torch.tensor([[True, True]])
        >>> vespo_surrogate(logprobs, torch.tensor([[0.2, 0.3]]), torch.tensor([1.0]), mask).loss
        tensor([[0.3882, 0.3882]])
    """
    require(k_positive >= 0, "k_positive", "a number of at least 0", k_positive)
    require(lambda_positive > 0, "lambda_positive", "a number above 0", lambda_positive)
    require(k_negative >= 0, "k_negative", "a number of at least 0", k_negative)
    require(lambda_negative > 0, "lambda_negative", "a number above 0", lambda_negative)
    log_w = sequence_sum(log_ratio.detach(), mask).clamp(-EXP_LIMIT, EXP_LIMIT).unsqueeze(1)
    w, advantage = log_w.exp(), per_token(advantages, log_w)
    negative = advantage < 0
    k = torch.full_like(advantage, k_positive).masked_fill(negative, k_negative)
    lam = torch.full_like(advantage, lambda_positive).masked_fill(negative, lambda_negative)
    weight = (lam * (1 - w) + k * log_w).clamp(max=EXP_LIMIT).exp()
    loss = weight * -advantage * at_least_float32(logprobs)
    return surrogate(loss, w.expand_as(loss), advantages, torch.where(mask, log_ratio, 0))
