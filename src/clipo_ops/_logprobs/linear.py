"""Hidden states to log-probabilities and entropies, in the memory of a tile of logits."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipo_ops._kernels.linear import linear_logprobs
from clipo_ops._typing import require, shaped


class LinearLogprobs(NamedTuple):
    """What a language model's head says of its tokens.

    Attributes:
        logprobs: The log-probability of each token.
        entropy: The entropy of the distribution it was taken from, in nats.
    """

    logprobs: Float[Tensor, "rollouts tokens"]
    entropy: Float[Tensor, "rollouts tokens"]


@shaped
def linear_token_logprobs(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    token_ids: Int[Tensor, "rollouts tokens"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk_size: int = 4096,
    keep_logits: float = 0.0,
) -> LinearLogprobs:
    r"""`token_logprobs` and `token_entropy` of a linear head's logits, which are never held as a whole.

    $$\log \pi(y_t) = l_{t y_t} - \log \sum_v e^{l_{tv}}, \qquad
    H_t = -\sum_v \pi_{tv} \log \pi_{tv}, \qquad l_{tv} = \frac{s}{T} (w_v \cdot h_t + b_v)$$

    and with a soft cap $c$, $l_{tv} = \frac{c}{T} \tanh(\frac{s}{c} (w_v \cdot h_t + b_v))$.

    Backward makes the logits once more, so that a step takes four products of tokens x vocabulary x hidden, where
    keeping them takes three (`keep_logits` trades one for the other), and turns each tile into the gradient,

    $$\frac{\partial}{\partial l_{tv}} = g_t\, (1[v = y_t] - \pi_{tv}) - e_t\, \pi_{tv} (\log \pi_{tv} + H_t)$$

    where $g$ and $e$ are the gradients of the two results: both flow to `hidden`, `weight` and `bias`, and a frozen one
    costs no product. Second derivatives and forward mode raise NotImplementedError.

    Args:
        hidden: $h$, the states that predict `token_ids` (already shifted by one): what the head is given.
        weight: $w$, the head's weight, such as `model.lm_head.weight`.
        token_ids: The tokens, in [0, vocab). One outside, such as -100 for padding, has log-probability NaN: mask it.
        bias: $b$, or None. -inf for a token that cannot occur (without a soft cap).
        temperature: $T$, above 0: the one that the tokens were sampled at.
        logit_scale: $s$, above 0, of models that scale their logits (Cohere's `logit_scale`, 1 / Granite's
            `logits_scaling`).
        softcap: $c$, above 0, of models that cap their logits (`final_logit_softcapping` of Gemma 2), or None.
        chunk_size: Vocabulary entries in a tile, at least 1. Extra memory is about 8 bytes x `chunk_size` x at most
            4096 tokens, half as much again with a soft cap.
        keep_logits: Share of the logits, in [0, 1], that is kept for backward, in whole tiles: 4 bytes (8 in float64)
            for each, and nothing where no gradient is asked for.

    Returns:
        Log-probabilities and entropies, in float32 for half precision input, since a ratio needs it. Products are taken
        in the inputs' dtype (the wider, where they differ), also under autocast, and added up in at least float32;
        logits of half precision are rounded as the model's own head rounds them, and on CUDA not at all.

    Raises:
        ValueError: `temperature`, `logit_scale` or `softcap` not above 0; `chunk_size` below 1; `keep_logits` outside
            [0, 1].
        NotImplementedError: A second derivative, or one in forward mode.

    Source:
        Online softmax (arXiv 1805.02867); for a linear head, Cut Your Losses (arXiv 2411.09009, section 4); soft cap
        and scale as in transformers' Gemma 2, Granite and Cohere.

    Examples:
        >>> hidden, weight = torch.zeros(1, 1, 3), torch.ones(2, 3)
        >>> linear_token_logprobs(hidden, weight, torch.tensor([[1]]))
        LinearLogprobs(logprobs=tensor([[-0.6931]]), entropy=tensor([[0.6931]]))
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    require(logit_scale > 0, "logit_scale", "a number above 0", logit_scale)
    require(softcap is None or softcap > 0, "softcap", "a number above 0 or None", softcap)
    require(chunk_size >= 1, "chunk_size", "at least 1", chunk_size)
    require(0 <= keep_logits <= 1, "keep_logits", "a number in [0, 1]", keep_logits)
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    logprobs, entropy = linear_logprobs(
        hidden.flatten(0, 1).to(dtype),
        weight.to(dtype),
        None if bias is None else bias.to(dtype),
        token_ids.flatten().long(),
        scale=logit_scale / temperature,
        softcap=None if softcap is None else softcap / temperature,
        chunk_size=chunk_size,
        keep_logits=keep_logits,
    )
    return LinearLogprobs(logprobs.view(token_ids.shape), entropy.view(token_ids.shape))
