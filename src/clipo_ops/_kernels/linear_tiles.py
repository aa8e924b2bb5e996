"""Tiles of a linear head's logits: how they are made, kept, and turned into their gradient."""

from collections.abc import Iterator

import torch
from torch import Tensor

TILE_TOKENS = 4096

MIN_LOGPROB = -1e4  # nats; a probability of e to this is 0, and 0 times it is not NaN


class LogitTiles:
    """The logits of some tokens over some vocabulary entries at a time, in two buffers that all tiles share.

    Tiles of the first `kept.shape[1]` vocabulary entries live in `kept` and survive.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        softcap: float | None,
        chunk_size: int,
        kept: Tensor,
    ) -> None:
        self.hidden, self.weight, self.bias, self.kept = hidden, weight, bias, kept
        self.scale, self.softcap = scale, softcap
        self.dtype = accumulation_dtype(hidden.dtype)
        self.chunk_size = min(chunk_size, len(weight))
        size = min(TILE_TOKENS, len(hidden)) * self.chunk_size
        self._work, self._scratch = (hidden.new_empty(size, dtype=self.dtype) for _ in range(2))

    def vocab_slices(self) -> Iterator[slice]:
        return _slices(len(self.weight), self.chunk_size)

    def token_slices(self) -> Iterator[slice]:
        return _slices(len(self.hidden), TILE_TOKENS)

    def zeros(self, *shape: int) -> Tensor:
        return self.hidden.new_zeros(shape, dtype=self.dtype)

    def work(self, tile: Tensor) -> Tensor:
        """The buffer that logits are made in, in a tile's shape."""
        return self._work[: tile.numel()].view(tile.shape)

    def scratch(self, tile: Tensor) -> Tensor:
        """The other buffer, in a tile's shape."""
        return self._scratch[: tile.numel()].view(tile.shape)

    def logits(self, tokens: slice, vocab: slice, *, reuse: bool = False) -> Tensor:
        """Returns a tile of logits; with `reuse`, tiles that `kept` holds are not computed again."""
        hidden, weight = self.hidden[tokens], self.weight[vocab]
        is_kept = int(vocab.stop) <= self.kept.shape[1]
        if is_kept and reuse:
            return self.kept[tokens, vocab]
        size = len(hidden) * len(weight)
        tile = self.kept[tokens, vocab] if is_kept else self._work[:size].view(len(hidden), len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            if tile.dtype == hidden.dtype:
                torch.mm(hidden, weight.mT, out=tile)
            elif hidden.is_cuda:
                torch.mm(hidden, weight.mT, out_dtype=tile.dtype, out=tile)
            else:
                tile.copy_(hidden @ weight.mT)
        if self.bias is not None:
            tile.add_(self.bias[vocab])
        if self.scale != 1:
            tile.mul_(self.scale)
        return tile if self.softcap is None else tile.div_(self.softcap).tanh_().mul_(self.softcap)

    def softcap_slope(self, logits: Tensor) -> Tensor | None:
        """The derivative of the soft cap at these logits, 1 - tanh^2, in fresh memory."""
        return None if self.softcap is None else (logits / self.softcap).square_().neg_().add_(1)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def columns_of(token_ids: Tensor, vocab: slice) -> tuple[Tensor, Tensor]:
    """The column of each token in a tile of these vocabulary entries, and whether it is in the tile at all."""
    column = token_ids - vocab.start
    last = vocab.stop - vocab.start - 1
    return column.clamp(0, last), (column >= 0) & (column <= last)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, accumulated in the dtype of `total`."""
    with torch.autocast(total.device.type, enabled=False):
        if total.dtype == left.dtype:
            total.addmm_(left, right)
        elif total.is_cuda:
            torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
        else:
            total += left @ right


def logprobs_to_gradient_(
    tile: Tensor,
    columns: tuple[Tensor, Tensor],
    logprobs_grad: Tensor | None,
    entropy_grad: Tensor | None,
    entropy: Tensor,
    scratch: Tensor,
) -> None:
    """Turns a tile of log-probabilities into the gradient of its logits, in place."""
    if entropy_grad is None:
        tile.exp_()
        if logprobs_grad is not None:
            tile.mul_(-logprobs_grad.unsqueeze(1))
    else:
        factor = torch.clamp(tile, min=MIN_LOGPROB, out=scratch).add_(entropy.unsqueeze(1))
        factor.mul_(entropy_grad.unsqueeze(1))
        if logprobs_grad is not None:
            factor.add_(logprobs_grad.unsqueeze(1))
        tile.exp_().mul_(factor.neg_())
    if logprobs_grad is not None:
        column, inside = columns
        tile.scatter_add_(1, column.unsqueeze(1), torch.where(inside, logprobs_grad, 0).unsqueeze(1))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
