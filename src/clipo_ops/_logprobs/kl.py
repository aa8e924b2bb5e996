"""Estimates of the KL divergence per token."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clipo_ops._numerics import at_least_float32, log_difference, rounded
from clipo_ops._typing import shaped

KLEstimator = Literal["k1", "k1+", "k2", "k3", "k3+", "abs"]

_LIMIT = 20.0  # nats; keeps exponentials, and a product of two, finite


@shaped
def kl_estimate(
    logprobs: Float[Tensor, "rollouts tokens"],
    ref_logprobs: Float[Tensor, "rollouts tokens"],
    *,
    estimator: KLEstimator = "k3",
) -> Float[Tensor, "rollouts tokens"]:
    r"""A one-sample estimate per token of KL(policy, reference), for tokens sampled from the policy.

    With $d = \log \pi - \log \pi_\text{ref}$, clamped to +-20 nats, and 0 where both are -inf:

    | estimator | value | properties | expected gradient, in the loss |
    |---|---|---|---|
    | `k1` | $d$ | unbiased, high variance, may be negative | 0: pure noise |
    | `k2` | $d^2 / 2$ | biased, low variance | that of KL(policy, reference) |
    | `k3` | $e^{-d} - 1 + d$ | unbiased, low variance, at least 0 | that of KL(reference, policy) |
    | `abs` | $\lvert d \rvert$ | biased | twice that of the total variation |
    | `k1+`, `k3+` | that of `k1`, `k3` | | that of `k2` |

    The table holds for tokens sampled from the policy itself. Once the policy has moved away from the one that sampled,
    values and gradients lack the importance ratio, which `unbiased_kl_estimate` has. As a penalty in the reward, where
    only the value counts, `k1` alone gives the gradient of the divergence.

    Args:
        logprobs: Log-probabilities under the policy.
        ref_logprobs: The same under the reference model.
        estimator: See above.

    Returns:
        Estimates in nats, of the log-probabilities' dtype, computed in at least float32.

    Raises:
        ValueError: Unknown estimator.

    Source:
        J. Schulman, "Approximating KL divergence" (2020); `k3` is GRPO's (arXiv 2402.03300, eq. 4); gradients: Tang and
        Munos (arXiv 2506.09477); `abs`, `k1+` and `k3+` as in verl (`kl_penalty`).

    Examples:
        >>> kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]))
        tensor([[0.1065]])
    """
    d = log_difference(logprobs, ref_logprobs).clamp(-_LIMIT, _LIMIT)
    match estimator.removesuffix("+"):
        case "k1":
            value = d
        case "k2":
            value = d.square() / 2
        case "k3":
            value = torch.expm1(-d) + d
        case _:
            value = d.abs()
    if estimator.endswith("+"):
        k2 = d.square() / 2
        value = value.detach() + (k2 - k2.detach())
    return rounded(value, logprobs.dtype)


@shaped
def unbiased_kl_estimate(
    logprobs: Float[Tensor, "rollouts tokens"],
    ref_logprobs: Float[Tensor, "rollouts tokens"],
    log_ratio: Float[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts tokens"]:
    r"""An estimate per token of KL(policy, reference), for tokens sampled from an older policy.

    $$\rho_{it} \left(e^{-d_{it}} - 1 + d_{it}\right), \qquad \rho_{it} = \frac{\pi(y_{it})}{\pi_\text{old}(y_{it})},
    \quad d_{it} = \log \frac{\pi(y_{it})}{\pi_\text{ref}(y_{it})}$$

    `kl_estimate` with `k3`, times the importance ratio. Its expectation under the old policy is the divergence, and the
    expectation of its gradient is the divergence's: also on-policy, where the ratio is 1 but has a gradient.

    Args:
        logprobs: Log-probabilities under the policy.
        ref_logprobs: The same under the reference model.
        log_ratio: $\log \rho$, as from `log_ratio`, not detached; clamped to +-20 nats, as $d$ is.

    Returns:
        Estimates in nats, of the log-probabilities' dtype, computed in at least float32.

    Source:
        DeepSeek-V3.2 (arXiv 2512.02556, section 3.1, "Unbiased KL Estimate"); TRL's `use_bias_correction_kl`.

    Examples:
        >>> unbiased_kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]), torch.tensor([[0.2]]))
        tensor([[0.1301]])
    """
    ratio = at_least_float32(log_ratio).clamp(-_LIMIT, _LIMIT).exp()
    k3 = kl_estimate(at_least_float32(logprobs), ref_logprobs)
    return rounded(ratio * k3, logprobs.dtype)
