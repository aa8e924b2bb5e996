"""Log-ratios between the policy and the one that is corrected for."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._masking import sequence_mean
from clipo_ops._numerics import at_least_float32, log_difference
from clipo_ops._typing import require, shaped


@shaped
def log_ratio(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    limit: float = 20.0,
) -> Float[Tensor, "rollouts tokens"]:
    r"""The log importance ratio per token, clamped so that its exponential is finite.

    $$d_{it} = \operatorname{clamp}(\log \pi(y_{it}) - \log \pi_\text{old}(y_{it}),\, \pm\text{limit})$$

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them. NaN where they are not known: the log-ratio is then
            exactly 0, with the gradient of `logprobs`. -inf in both gives 0 without a gradient.
        mask: True where a token counts.
        limit: Largest magnitude, above 0, in nats. Beyond it the gradient is 0.

    Returns:
        Log-ratios, 0 under a False mask; float32 for half precision input, since a ratio needs it, else of the
        log-probabilities' dtype. The gradient flows to both arguments: detach `old_logprobs` yourself if it has one.

    Raises:
        ValueError: `limit` not above 0.

    Source:
        PPO (arXiv 1707.06347, section 3).

    Examples:
        >>> mask = torch.tensor([[True, True, False]])
        >>> log_ratio(torch.tensor([[-1.0, -0.5, 0.0]]), torch.tensor([[-1.5, -90.0, float("nan")]]), mask)
        tensor([[ 0.5000, 20.0000,  0.0000]])
    """
    require(limit > 0, "limit", "a number above 0", limit)
    old = torch.where(old_logprobs.isnan(), logprobs.detach(), old_logprobs)
    return torch.where(mask, log_difference(logprobs, old), 0).clamp(-limit, limit)


@shaped
def sequence_log_ratio(
    log_ratio: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, " rollouts"]:
    r"""The log-ratio of whole responses per token: the logarithm of the geometric mean of the tokens' ratios.

    $$\log s_i = \frac{1}{|y_i|} \sum_t m_{it}\, d_{it}, \qquad |y_i| = \sum_t m_{it}$$

    Args:
        log_ratio: $d$, as from `log_ratio`.
        mask: $m$, True where a token counts.

    Returns:
        One log-ratio per rollout, 0 for one without a valid token; of the log-ratio's dtype, summed in at least
        float32.

    Source:
        GSPO (arXiv 2507.18071, eq. 7).

    Examples:
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> sequence_log_ratio(torch.tensor([[0.5, -0.1, 9.0], [1.0, 1.0, 1.0]]), mask)
        tensor([0.2000, 0.0000])
    """
    return sequence_mean(log_ratio, mask).to(log_ratio.dtype)


@shaped
def gspo_token_log_ratio(
    log_ratio: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts tokens"]:
    r"""GSPO-token's log-ratio: the value of the whole response's, the gradient of the token's own.

    $$\log s_{it} = \operatorname{sg}[\log s_i] + d_{it} - \operatorname{sg}[d_{it}]$$

    with $\log s_i$ from `sequence_log_ratio`. GSPO is `clipped_surrogate` of it, reduced by `seq-mean-token-mean`; with
    an advantage per token it is GSPO-token.

    Args:
        log_ratio: $d$, as from `log_ratio`.
        mask: True where a token counts.

    Returns:
        Log-ratios per token, of the log-ratio's dtype; 0 without a gradient under a False mask.

    Source:
        GSPO (arXiv 2507.18071, eq. 14).

    Examples:
        >>> gspo_token_log_ratio(torch.tensor([[0.5, -0.1]]), torch.tensor([[True, True]]))
        tensor([[0.2000, 0.2000]])
    """
    own = at_least_float32(log_ratio)
    sequence = sequence_mean(own.detach(), mask).unsqueeze(1)
    return torch.where(mask, sequence + (own - own.detach()), 0).to(log_ratio.dtype)
