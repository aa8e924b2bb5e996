"""A linear head's log-probabilities and entropies, without ever holding logits of tokens x vocabulary.

`linear_logprobs` is the one door. Logits are made tile by tile, forward and again in backward; what is kept between the
two is one number a token, and those logits that a caller has memory for. The two loops are operators of their own to
`torch.compile`, which would otherwise unroll them. They have a first derivative in reverse mode; all others raise.
"""

from typing import Any, Never

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from clipo_ops._kernels.linear_tiles import (
    MIN_LOGPROB,
    LogitTiles,
    accumulation_dtype,
    add_product,
    columns_of,
    logprobs_to_gradient_,
)


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    *,
    scale: float,
    softcap: float | None,
    chunk_size: int,
    keep_logits: float,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of tokens under softmax(l), l = softcap * tanh(scale * (h W^T + b) / softcap).

    Hidden states are tokens x hidden, of the weight's dtype.
    """
    operands = [x for x in (hidden, weight, bias) if x is not None]
    if any(unpack_dual(x).tangent is not None for x in operands):
        _refuse("forward mode")
    kept = 0
    if torch.is_grad_enabled() and any(x.requires_grad for x in operands):
        vocab = len(weight)
        kept = vocab if keep_logits == 1 else int(keep_logits * vocab) // chunk_size * chunk_size
    logprobs, entropy, *_ = _forward(hidden, weight, bias, token_ids, scale, softcap, chunk_size, kept)
    return logprobs, entropy


def _refuse(derivative: str) -> Never:
    raise NotImplementedError(
        f"linear_token_logprobs has no {derivative} derivative: take token_logprobs and token_entropy of the logits"
    )


@torch.library.custom_op("clipo::linear_token_logprobs", mutates_args=())
def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    scale: float,
    softcap: float | None,
    chunk_size: int,
    kept: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies, the logarithms of the normalisers, and the first `kept` logits of each token."""
    logits = hidden.new_empty(len(hidden), kept, dtype=accumulation_dtype(hidden.dtype))
    tiles = LogitTiles(hidden, weight, bias, scale, softcap, chunk_size, logits)
    chosen = tiles.zeros(len(hidden)).fill_(torch.nan)
    maximum = tiles.zeros(len(hidden)).fill_(torch.finfo(tiles.dtype).min / 4)
    total = tiles.zeros(len(hidden))  # of e^(l - maximum)
    moment = tiles.zeros(len(hidden))  # of (l - maximum) e^(l - maximum)
    for vocab in tiles.vocab_slices():
        for tokens in tiles.token_slices():
            tile = tiles.logits(tokens, vocab)
            column, inside = columns_of(token_ids[tokens], vocab)
            chosen[tokens] = torch.where(inside, tile.gather(1, column.unsqueeze(1)).squeeze(1), chosen[tokens])
            higher = torch.maximum(maximum[tokens], tile.amax(1))
            shift = maximum[tokens] - higher
            tile = torch.sub(tile, higher.unsqueeze(1), out=tiles.work(tile))
            weights = torch.exp(tile, out=tiles.scratch(tile))
            moment[tokens] = (moment[tokens] + total[tokens] * shift) * shift.exp()
            moment[tokens] += tile.clamp_(min=MIN_LOGPROB).mul_(weights).sum(1)
            total[tokens] = total[tokens] * shift.exp() + weights.sum(1)
            maximum[tokens] = higher
    log_total = total.log()
    entropy = (log_total - moment / total).clamp_(min=0)
    return chosen - maximum - log_total, entropy, maximum + log_total, logits


@torch.library.custom_op("clipo::linear_token_logprobs_backward", mutates_args=())
def _backward(
    logprobs_grad: Tensor | None,
    entropy_grad: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    entropy: Tensor,
    normaliser: Tensor,
    kept: Tensor,
    scale: float,
    softcap: float | None,
    chunk_size: int,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of hidden states, weight and bias; empty where not needed."""
    tiles = LogitTiles(hidden, weight, bias, scale, softcap, chunk_size, kept)
    of_hidden, of_weight, of_bias = needed
    hidden_grad = tiles.zeros(*hidden.shape if of_hidden else (0,))
    weight_grad = weight.new_empty(weight.shape if of_weight else 0)
    bias_grad = weight.new_empty(len(weight) if of_bias else 0)
    for vocab in tiles.vocab_slices():
        size = vocab.stop - vocab.start
        weight_sum = tiles.zeros(*(size, hidden.shape[1]) if of_weight else (0,))
        bias_sum = tiles.zeros(size)
        for tokens in tiles.token_slices():
            tile = tiles.logits(tokens, vocab, reuse=True)
            slope = tiles.softcap_slope(tile)
            tile = torch.sub(tile, normaliser[tokens].unsqueeze(1), out=tiles.work(tile))
            logprobs_to_gradient_(
                tile,
                columns_of(token_ids[tokens], vocab),
                None if logprobs_grad is None else logprobs_grad[tokens] * scale,
                None if entropy_grad is None else entropy_grad[tokens] * scale,
                entropy[tokens],
                tiles.scratch(tile),
            )
            if slope is not None:
                tile.mul_(slope)
            if of_bias:
                bias_sum += tile.sum(0)
            rounded = tile.to(hidden.dtype)
            if of_hidden:
                add_product(hidden_grad[tokens], rounded, weight[vocab])
            if of_weight:
                add_product(weight_sum, rounded.mT, hidden[tokens])
        if of_weight:
            weight_grad[vocab] = weight_sum
        if of_bias:
            bias_grad[vocab] = bias_sum
    return hidden_grad.to(hidden.dtype), weight_grad, bias_grad


@_forward.register_fake
def _(hidden: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    dtype, kept = accumulation_dtype(hidden.dtype), rest[-1]
    numbers = (hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(3))
    return *numbers, hidden.new_empty(hidden.shape[0], kept, dtype=dtype)


@_backward.register_fake
def _(_logprobs_grad: Any, _entropy_grad: Any, hidden: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    of_hidden, of_weight, of_bias = rest[-1]
    return (
        hidden.new_empty(hidden.shape if of_hidden else (0,)),
        weight.new_empty(weight.shape if of_weight else (0,)),
        weight.new_empty(weight.shape[0] if of_bias else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, token_ids, *ctx.options, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(hidden, weight, bias, token_ids, *output[1:])


def _differentiate(
    ctx: Any, logprobs_grad: Tensor | None, entropy_grad: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:3])
    if logprobs_grad is None and entropy_grad is None:
        return (None,) * 8
    grads = _backward(logprobs_grad, entropy_grad, *ctx.saved_tensors, *ctx.options, needed)
    return *(grad if wanted else None for grad, wanted in zip(grads, needed, strict=True)), *(None,) * 5


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(lambda *_: _refuse("second"))
