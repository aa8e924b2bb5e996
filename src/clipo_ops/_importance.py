"""Log-ratios between the policy and the one that is corrected for."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._typing import at_least_float32, require, shaped


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
        old_logprobs: The same under the policy that they were sampled or scored by. NaN where they are not known: the
            log-ratio is then exactly 0, with the gradient of `logprobs`.
        mask: True where a token counts. What stands elsewhere may be anything, NaN included.
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
    new = torch.where(mask, at_least_float32(logprobs), 0)
    old = torch.where(mask, at_least_float32(old_logprobs), 0)
    old = torch.where(old.isnan(), new.detach(), old)
    return (new - old).clamp(-limit, limit)
