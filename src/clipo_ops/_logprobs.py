"""Logits -> log-probabilities and entropy of the response tokens, and estimators of a KL divergence."""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipo_ops._typing import at_least_float32, log_difference, require, rounded, shaped

if TYPE_CHECKING:
    KLEstimator = Literal["k1", "k2", "k3", "k3+"]
else:
    KLEstimator = str  # so that a wrong name gets the ValueError below

_LIMIT = 20.0  # nats; keeps the exponential of k3 finite


@shaped
def token_logprobs(
    logits: Float[Tensor, "rollouts tokens vocab"],
    token_ids: Int[Tensor, "rollouts tokens"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "rollouts tokens"]:
    r"""The log-probability of each token under softmax(logits / temperature).

    $$\log \pi(y_t) = \frac{l_{y_t}}{T} - \log \sum_v e^{l_v / T}$$

    Args:
        logits: Logits that predict `token_ids` (already shifted by one).
        token_ids: The tokens, in [0, vocab).
        temperature: $T$, above 0: the one that the tokens were sampled at.

    Returns:
        Log-probabilities of the logits' dtype, computed in at least float32.

    Raises:
        ValueError: `temperature` not above 0.

    Source:
        Definition of the softmax policy.

    Examples:
        >>> token_logprobs(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[1]]))
        tensor([[-0.6931]])
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    scaled = at_least_float32(logits) / temperature
    chosen = scaled.gather(-1, token_ids.unsqueeze(2).long()).squeeze(-1)
    return (chosen - scaled.logsumexp(-1)).to(logits.dtype)


@shaped
def token_entropy(
    logits: Float[Tensor, "rollouts tokens vocab"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "rollouts tokens"]:
    r"""The entropy of softmax(logits / temperature) at each token.

    $$H_t = -\sum_v \pi_v \log \pi_v = \log \sum_v e^{l_v / T} - \sum_v \pi_v \frac{l_v}{T}$$

    Args:
        logits: Logits; -inf for a token that cannot occur.
        temperature: $T$, above 0.

    Returns:
        Entropies in nats, in [0, log vocab], of the logits' dtype, computed in at least float32.

    Raises:
        ValueError: `temperature` not above 0.

    Source:
        Definition of Shannon's entropy.

    Examples:
        >>> token_entropy(torch.tensor([[[0.0, 0.0], [9.0, 0.0]]]))
        tensor([[0.6931, 0.0012]])
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    logprobs = (at_least_float32(logits) / temperature).log_softmax(-1)
    possible = torch.where(logprobs == -torch.inf, 0, logprobs)
    return -(possible.exp() * possible).sum(-1).to(logits.dtype)


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
    require(estimator in ("k1", "k2", "k3", "k3+"), "estimator", "'k1', 'k2', 'k3' or 'k3+'", estimator)
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
