"""Estimates of the KL divergence per token."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._numerics import log_difference, rounded
from clipo_ops._typing import shaped

KLEstimator = Literal["k1", "k2", "k3", "k3+"]


_LIMIT = 20.0  # nats; keeps the exponential of k3 finite


@shaped
def kl_estimate(
    logprobs: Float[Tensor, "rollouts tokens"],
    ref_logprobs: Float[Tensor, "rollouts tokens"],
    *,
    estimator: KLEstimator = "k3",
) -> Float[Tensor, "rollouts tokens"]:
    r"""A one-sample estimate per token of KL(policy, reference), for tokens sampled from the policy.

    With $d = \log \pi - \log \pi_\text{ref}$, clamped to +-20 nats, and 0 where both are -inf:

    | estimator | value | remarks |
    |---|---|---|
    | `k1` | $d$ | unbiased, high variance, may be negative |
    | `k2` | $d^2 / 2$ | biased, low variance; its gradient is the KL's |
    | `k3` | $e^{-d} - 1 + d$ | unbiased, low variance, at least 0; its gradient is not the KL's |
    | `k3+` | that of `k3` | with the gradient of `k2` |

    Args:
        logprobs: Log-probabilities under the policy.
        ref_logprobs: The same under the reference model.
        estimator: See above.

    Returns:
        Estimates in nats, of the log-probabilities' dtype, computed in at least float32.

    Raises:
        ValueError: Unknown estimator.

    Source:
        J. Schulman, "Approximating KL divergence" (2020); `k3` is GRPO's (arXiv 2402.03300, eq. 4);
        which gradient is the KL's: Tang and Munos (arXiv 2506.09477); `k3+` as in verl.

    Examples:
        >>> kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]))
        tensor([[0.1065]])
    """
    difference = log_difference(logprobs, ref_logprobs).clamp(-_LIMIT, _LIMIT)
    square = difference.square() / 2
    if estimator == "k1":
        result = difference
    elif estimator == "k2":
        result = square
    else:
        result = torch.expm1(-difference) + difference
    if estimator == "k3+":
        result = result.detach() + (square - square.detach())
    return rounded(result, logprobs.dtype)
