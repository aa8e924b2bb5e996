"""Log-probabilities and entropies of tokens, from logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped


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
    return rounded(chosen - scaled.logsumexp(-1), logits.dtype)


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
    return rounded(-(possible.exp() * possible).sum(-1), logits.dtype)
