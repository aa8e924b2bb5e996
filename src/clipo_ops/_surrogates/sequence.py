"""Surrogates that take the ratio of the whole response."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._masking import sequence_mean, sequence_sum
from clipo_ops._surrogates.result import Surrogate, bounded, by_sign, known, per_token, surrogate, weighted
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
    r"""GMPO: the geometric mean of a response's clipped ratios, which one outlier does not dominate.

    $$\ell_i = -A_i \exp\Bigl(\frac{1}{|y_i|} \sum_t m_{it}\, c_{it}\Bigr), \qquad
    c_{it} = \begin{cases} \min(d_{it}, \text{high}) & A_i > 0 \\ \max(d_{it}, -\text{low}) & A_i < 0 \end{cases}$$

    at every token of the response, so that `seq-mean-token-mean` reduces it to the paper's objective.

    Unequal bounds are TRL's and verl's, as here. The paper clips $\rho^{\operatorname{sgn} A}$ to one interval, of
    which only the upper end can bind: where $A < 0$ its ratio may fall to exp(-clip_high), ours to exp(-clip_low). For
    $d = -1.5$, `clip_low` 0.2 and `clip_high` 0.5 that is 0.607 there and 0.819 here. The authors' code has one bound.

    Args:
        log_ratio: $d$, as from `log_ratio`; clamped to +-80.
        advantages: $A$, one per rollout.
        mask: $m$.
        clip_low: At least 0, in nats: where $A < 0$ a ratio may fall to exp(-clip_low).
        clip_high: At least 0, in nats: where $A > 0$ a ratio may rise to exp(clip_high).

    Returns:
        Loss and ratio (the geometric mean), the same at all tokens of a response, as views of one value; and where a
        token is clipped. Of the log-ratio's dtype.

    Raises:
        ValueError: A bound below 0.

    Source:
        Geometric-mean policy optimization (arXiv 2507.20673) and its authors' code.

    Examples:
        >>> d, mask = torch.tensor([[0.1, 9.0]]), torch.tensor([[True, True]])
        >>> geometric_mean_surrogate(d, torch.tensor([1.0]), mask).loss
        tensor([[-1.2840, -1.2840]])
    """
    require(clip_low >= 0, "clip_low", "a number of at least 0", clip_low)
    require(clip_high >= 0, "clip_high", "a number of at least 0", clip_high)
    d = bounded(torch.where(mask, log_ratio, 0))
    advantage = per_token(advantages, d)
    d = known(d, advantage)
    risen = torch.where(advantage > 0, d.clamp(max=clip_high), d)
    counted = torch.where(advantage < 0, d.clamp(min=-clip_low), risen)
    ratio = sequence_mean(counted, mask).exp().unsqueeze(1)
    return surrogate((-advantage * ratio).expand_as(d), ratio.expand_as(d), log_ratio.dtype, clipped=counted != d)


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
    importance_weights: Float[Tensor, "rollouts tokens"] | None = None,
) -> Surrogate:
    r"""VESPO: REINFORCE weighted by a smooth bump of the whole response's ratio.

    $$\ell_{it} = -\operatorname{sg}[\phi(w_i)]\, A_{it} \log \pi(y_{it}), \qquad
    \phi(w) = w^k e^{\lambda (1 - w)}, \qquad w_i = \prod_t \bigl(e^{d_{it}} v_{it}\bigr)^{m_{it}}$$

    with $k$ and $\lambda$ by the sign of $A_{it}$.

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d$, as from `log_ratio`; a constant. Taken to the rollout engine's log-probabilities it corrects for
            the engine too.
        advantages: $A$.
        mask: $m$.
        k_positive: $k$ where $A \ge 0$, at least 0: the higher, the less a response of low ratio counts.
        lambda_positive: $\lambda$ where $A \ge 0$, above 0: the higher, the less a response of high ratio counts.
        k_negative: $k$ where $A < 0$.
        lambda_negative: $\lambda$ where $A < 0$.
        importance_weights: $v$, at least 0: `truncated_importance_weights` or `masked_importance_weights` at the level
            `token`, if the log-ratio is to recomputed old log-probabilities; 1 when None. They belong inside $\phi$, as
            in the authors' code and TRL, not on the loss.

    Returns:
        Loss per token; ratio $w$, the same at all tokens of a response, within exp(+-80); clip indicator (False). Of
        the log-ratio's dtype.

    Raises:
        ValueError: A $k$ below 0 or a $\lambda$ that is not above 0.

    Source:
        VESPO (arXiv 2602.10693) and its authors' code.

    Examples:
        >>> logprobs, mask = torch.tensor([[-1.0, -1.0]]), torch.tensor([[True, True]])
        >>> vespo_surrogate(logprobs, torch.tensor([[0.2, 0.3]]), torch.tensor([1.0]), mask).loss
        tensor([[0.3882, 0.3882]])
    """
    require(k_positive >= 0, "k_positive", "a number of at least 0", k_positive)
    require(lambda_positive > 0, "lambda_positive", "a number above 0", lambda_positive)
    require(k_negative >= 0, "k_negative", "a number of at least 0", k_negative)
    require(lambda_negative > 0, "lambda_negative", "a number above 0", lambda_negative)
    log_w = sequence_sum(log_ratio.detach(), mask)
    if importance_weights is not None:
        log_w = log_w + sequence_sum(bounded(importance_weights.detach().log()), mask)
    log_w = bounded(log_w).unsqueeze(1)
    w, advantage = log_w.exp(), per_token(advantages, log_w)
    k, lam = by_sign(advantage, k_positive, k_negative), by_sign(advantage, lambda_positive, lambda_negative)
    phi = bounded(k * log_w + lam * (1 - w)).exp()
    loss = weighted(logprobs, phi * -advantage)
    return surrogate(loss, w.expand_as(loss), log_ratio.dtype)


@shaped
def topr_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Surrogate:
    r"""TOPR: REINFORCE on good responses, tapered by the response's ratio on bad ones.

    $$\ell_{it} = -\operatorname{sg}[\alpha_{it}]\, A_{it} \log \pi(y_{it}), \qquad
    \alpha_{it} = \begin{cases} 1 & A_{it} \ge 0 \\ \min(w_i, 1) & A_{it} < 0 \end{cases}, \qquad
    w_i = \exp \sum_t m_{it}\, d_{it}$$

    Made for data that another policy sampled, however long ago.

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d$, as from `log_ratio`; a constant.
        advantages: $A$; in the paper the reward, +1 or -1, less a constant baseline.
        mask: $m$.

    Returns:
        Loss per token; ratio $w$, the same at all tokens of a response, within exp(+-80); True where it is above 1 and
        $A < 0$. Of the log-ratio's dtype.

    Source:
        Tapered off-policy REINFORCE (arXiv 2503.14286, eq. 8), equation as quoted in ROLL. ROLL takes the ratio of each
        token, others the geometric mean; the paper's is that of the response.

    Examples:
        >>> logprobs, d = torch.full((2, 2), -1.0), torch.full((2, 2), -0.5)
        >>> topr_surrogate(logprobs, d, torch.tensor([1.0, -1.0]), torch.ones(2, 2).bool()).loss
        tensor([[ 1.0000,  1.0000],
                [-0.3679, -0.3679]])
    """
    log_w = bounded(sequence_sum(log_ratio.detach(), mask)).unsqueeze(1)
    w, advantage = log_w.exp(), per_token(advantages, log_w)
    alpha = torch.where(advantage < 0, w, w.clamp(min=1)).clamp(max=1)  # NaN stays NaN
    loss = weighted(logprobs, alpha * -advantage)
    tapered = ((advantage < 0) & (w > 1)).expand_as(loss)
    return surrogate(loss, w.expand_as(loss), log_ratio.dtype, clipped=tapered)


@shaped
def dro_surrogate(
    logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
    advantages: Float[Tensor, " rollouts"] | Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    tau: float = 0.1,
    level: Literal["sequence", "token"] = "sequence",
) -> Surrogate:
    r"""Kimi k1.5's mirror descent, also called DRO: REINFORCE with a square penalty on the log-ratio instead of a clip.

    $$\ell_{it} = -A_{it} \log \pi(y_{it}) + \frac{\tau}{2}\, d_{it} D_{it}, \qquad
    D_{it} = \begin{cases} \sum_k m_{ik}\, d_{ik} & \text{sequence} \\ d_{it} & \text{token} \end{cases}$$

    At the level `sequence`, tokens sum up to $-A_i \log \pi(y_i) + \frac{\tau}{2} \log^2 \frac{\pi(y_i)}
    {\pi_\text{old}(y_i)}$. Its minimum has $\tau \log (\pi / \pi_\text{old}) = A$.

    Args:
        logprobs: $\log \pi$.
        log_ratio: $d$, as from `log_ratio`; clamped to +-80. Its gradient is the penalty's.
        advantages: $A$; in the paper the reward less the mean of its group.
        mask: $m$.
        tau: $\tau$, at least 0. The paper does not publish its own; 0.1 is ROLL's.
        level: `"sequence"`, as in the paper, or `"token"`, as in verl, SkyRL and Tinker.

    Returns:
        Loss, ratio $e^d$ and clip indicator (False) per token, of the log-ratio's dtype.

    Raises:
        ValueError: `tau` below 0; unknown `level`.

    Source:
        Kimi k1.5 (arXiv 2501.12599, section 2.3.2, eq. 3); the level `token`: as in verl's `dro`.

    Examples:
        >>> d, mask = torch.tensor([[1.0, 2.0]]), torch.tensor([[True, True]])
        >>> dro_surrogate(torch.zeros(1, 2), d, torch.tensor([1.0]), mask).loss
        tensor([[0.1500, 0.3000]])
    """
    require(tau >= 0, "tau", "a number of at least 0", tau)
    d = bounded(torch.where(mask, log_ratio, 0))
    other = sequence_sum(d, mask).unsqueeze(1) if level == "sequence" else d
    loss = weighted(logprobs, -per_token(advantages, d)) + tau / 2 * d * other
    return surrogate(loss, d.exp(), log_ratio.dtype)
