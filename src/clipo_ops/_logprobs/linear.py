"""Hidden states -> log-probabilities and entropy, without ever holding logits of tokens x vocabulary.

Logits are made tile by tile, forward and again in backward; what is kept between the two is one number a token, and
those logits that a caller has memory for. The two loops are operators of their own to `torch.compile`, which would
otherwise unroll them.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipo_ops._kernels.linear_tiles import LEAST, Tiles, add_product, places, to_gradient, wide
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
    chunk_size: int = 4096,
    keep_logits: float = 0.0,
) -> LinearLogprobs:
    r"""`token_logprobs` and `token_entropy` of a linear head, in the memory of a tile instead of all logits.

    $$\log \pi(y_t) = l_{t y_t} - \log \sum_v e^{l_{tv}}, \qquad
    H_t = -\sum_v \pi_{tv} \log \pi_{tv}, \qquad l_{tv} = \frac{w_v \cdot h_t + b_v}{T}$$

    Backward makes the logits once more, so that a step takes four products of tokens x vocabulary x hidden, where
    keeping them takes three (`keep_logits` is the dial between the two), and turns each tile into the gradient,

    $$\frac{\partial}{\partial l_{tv}} = g_t\, (1[v = y_t] - \pi_{tv}) - e_t\, \pi_{tv} (\log \pi_{tv} + H_t)$$

    where $g$ and $e$ are the gradients of the two results: both flow to `hidden`, `weight` and `bias`, and a frozen one
    costs no product. There is no second derivative.

    Args:
        hidden: $h$, the states that predict `token_ids` (already shifted by one): what the head is given.
        weight: $w$, the head's weight, such as `model.lm_head.weight`.
        token_ids: The tokens, in [0, vocab). One outside, such as -100 for padding, has log-probability NaN: mask it.
        bias: $b$, or None. -inf for a token that cannot occur.
        temperature: $T$, above 0: the one that the tokens were sampled at.
        chunk_size: Words in a tile, at least 1. Extra memory is about 8 bytes x `chunk_size` x at most 4096 tokens.
        keep_logits: Share of the logits, in [0, 1], that is kept for backward, in whole tiles: 4 bytes (8 in float64)
            for each, and nothing where no gradient is asked for.

    Returns:
        Log-probabilities and entropies, in float32 for half precision input, since a ratio needs it. Products are taken
        in the inputs' dtype (the wider, where they differ), also under autocast, and added up in at least float32;
        logits of half precision are rounded as the model's own head rounds them, and on CUDA not at all.

    Raises:
        ValueError: `temperature` not above 0; `chunk_size` below 1; `keep_logits` outside [0, 1].

    Source:
        Online softmax (arXiv 1805.02867); for a linear head, Cut Your Losses (arXiv 2411.09009, section 4).

    Examples:
        >>> hidden, weight = torch.zeros(1, 1, 3), torch.ones(2, 3)
        >>> linear_token_logprobs(hidden, weight, torch.tensor([[1]]))
        LinearLogprobs(logprobs=tensor([[-0.6931]]), entropy=tensor([[0.6931]]))
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    require(chunk_size >= 1, "chunk_size", "at least 1", chunk_size)
    require(0 <= keep_logits <= 1, "keep_logits", "a number in [0, 1]", keep_logits)
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    rows, words = hidden.flatten(0, 1).to(dtype), weight.to(dtype)
    offsets = None if bias is None else bias.to(dtype)
    kept = 0
    if torch.is_grad_enabled() and any(x.requires_grad for x in (hidden, weight, bias) if x is not None):
        kept = len(words) if keep_logits == 1 else int(keep_logits * len(words)) // chunk_size * chunk_size
    ids = token_ids.flatten().long()
    logprobs, entropy, *_ = _forward(rows, words, offsets, ids, temperature, chunk_size, kept)
    return LinearLogprobs(logprobs.view(token_ids.shape), entropy.view(token_ids.shape))


@torch.library.custom_op("clipo::linear_token_logprobs", mutates_args=())
def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    temperature: float,
    chunk_size: int,
    kept: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies, the logarithms of the normalisers, and the logits of the first `kept` words."""
    logits = hidden.new_empty(len(hidden), kept, dtype=wide(hidden.dtype))
    tiles = Tiles(hidden, weight, bias, temperature, chunk_size, logits)
    chosen = tiles.zeros(len(hidden)).fill_(torch.nan)
    top = tiles.zeros(len(hidden)).fill_(torch.finfo(tiles.dtype).min / 4)
    total, moment = (
        tiles.zeros(len(hidden)),
        tiles.zeros(len(hidden)),
    )  # sums of e^(l - top) and of (l - top) e^(l - top)
    for words in tiles.words():
        for rows in tiles.rows():
            tile = tiles.make(rows, words)
            place, inside = places(token_ids[rows], words)
            chosen[rows] = torch.where(inside, tile.gather(1, place.unsqueeze(1)).squeeze(1), chosen[rows])
            higher = torch.maximum(top[rows], tile.amax(1))
            fall = top[rows] - higher
            tile = torch.sub(tile, higher.unsqueeze(1), out=tiles.buffer(tile))
            weights = torch.exp(tile, out=tiles.spare(tile))
            scale = fall.exp()
            moment[rows] = (moment[rows] + total[rows] * fall) * scale
            moment[rows] += tile.clamp_(min=LEAST).mul_(weights).sum(1)
            total[rows] = total[rows] * scale + weights.sum(1)
            top[rows] = higher
    spread = total.log()
    return chosen - top - spread, (spread - moment / total).clamp_(min=0), top + spread, logits


@torch.library.custom_op("clipo::linear_token_logprobs_backward", mutates_args=())
def _backward(
    of_logprobs: Tensor | None,
    of_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    entropy: Tensor,
    normaliser: Tensor,
    kept: Tensor,
    temperature: float,
    chunk_size: int,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of hidden states, weight and bias; empty where not needed."""
    tiles = Tiles(hidden, weight, bias, temperature, chunk_size, kept)
    to_hidden, to_weight, to_bias = needed
    hidden_grad = tiles.zeros(*hidden.shape if to_hidden else (0,))
    weight_grad = weight.new_empty(weight.shape if to_weight else 0)
    bias_grad = weight.new_empty(len(weight) if to_bias else 0)
    for words in tiles.words():
        count = words.stop - words.start
        weight_sum = tiles.zeros(count, hidden.shape[1]) if to_weight else tiles.zeros(0)
        bias_sum = tiles.zeros(count)
        for rows in tiles.rows():
            tile = tiles.kept[rows, words] if tiles.keeps(words) else tiles.make(rows, words)
            tile = torch.sub(tile, normaliser[rows].unsqueeze(1), out=tiles.buffer(tile))
            to_gradient(
                tile,
                places(token_ids[rows], words),
                None if of_logprobs is None else of_logprobs[rows] / temperature,
                None if of_entropy is None else of_entropy[rows] / temperature,
                entropy[rows],
                tiles.spare(tile),
            )
            if to_bias:
                bias_sum += tile.sum(0)
            low = tile.to(hidden.dtype)
            if to_hidden:
                add_product(hidden_grad[rows], low, weight[words])
            if to_weight:
                add_product(weight_sum, low.mT, hidden[rows])
        if to_weight:
            weight_grad[words] = weight_sum
        if to_bias:
            bias_grad[words] = bias_sum
    return hidden_grad.to(hidden.dtype), weight_grad, bias_grad


@_forward.register_fake
def _(hidden: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    dtype, kept = wide(hidden.dtype), rest[-1]
    numbers = (hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(3))
    return *numbers, hidden.new_empty(hidden.shape[0], kept, dtype=dtype)


@_backward.register_fake
def _(_g: Any, _e: Any, hidden: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    to_hidden, to_weight, to_bias = rest[-1]
    return (
        hidden.new_empty(hidden.shape if to_hidden else (0,)),
        weight.new_empty(weight.shape if to_weight else (0,)),
        weight.new_empty(weight.shape[0] if to_bias else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, token_ids, *ctx.options, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(hidden, weight, bias, token_ids, *output[1:])


def _differentiate(ctx: Any, of_logprobs: Tensor | None, of_entropy: Tensor | None, *_: Any) -> tuple[Any, ...]:
    needed = list(ctx.needs_input_grad[:3])
    if of_logprobs is None and of_entropy is None:
        return (None,) * 7
    grads = _backward(of_logprobs, of_entropy, *ctx.saved_tensors, *ctx.options, needed)
    return *(grad if wanted else None for grad, wanted in zip(grads, needed, strict=True)), *(None,) * 4


_forward.register_autograd(_differentiate, setup_context=_save)
