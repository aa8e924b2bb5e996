"""Tiles of a linear head's logits: how they are made, kept, and turned into their gradient."""

from collections.abc import Iterator

import torch
from torch import Tensor

TOKENS = 4096  # in a tile


LEAST = -1e4  # nats; a probability of e to this is 0, and 0 times it is not NaN


class Tiles:
    """The logits of some tokens over some words at a time, in two buffers that all tiles share or among those kept."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, chunk_size: int, kept: Tensor
    ) -> None:
        self.dtype = wide(hidden.dtype)
        self.hidden, self.weight, self.bias, self.temperature, self.kept = hidden, weight, bias, temperature, kept
        self.chunk_size = min(chunk_size, len(weight))
        size = min(TOKENS, len(hidden)) * self.chunk_size
        self.one, self.other = (hidden.new_empty(size, dtype=self.dtype) for _ in range(2))

    def words(self) -> Iterator[slice]:
        return _slices(len(self.weight), self.chunk_size)

    def rows(self) -> Iterator[slice]:
        return _slices(len(self.hidden), TOKENS)

    def zeros(self, *shape: int) -> Tensor:
        return self.hidden.new_zeros(shape, dtype=self.dtype)

    def buffer(self, tile: Tensor) -> Tensor:
        """The first buffer, in a tile's shape."""
        return self.one[: tile.numel()].view(tile.shape)

    def spare(self, tile: Tensor) -> Tensor:
        """The second buffer, in a tile's shape."""
        return self.other[: tile.numel()].view(tile.shape)

    def keeps(self, words: slice) -> bool:
        return int(words.stop) <= self.kept.shape[1]

    def make(self, rows: slice, words: slice) -> Tensor:
        """Logits, where they are kept or in the first buffer."""
        hidden, weight = self.hidden[rows], self.weight[words]
        size = len(hidden) * len(weight)
        tile = self.kept[rows, words] if self.keeps(words) else self.one[:size].view(len(hidden), len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            if tile.dtype == hidden.dtype:
                torch.mm(hidden, weight.mT, out=tile)
            elif hidden.is_cuda:
                torch.mm(hidden, weight.mT, out_dtype=tile.dtype, out=tile)
            else:
                tile.copy_(hidden @ weight.mT)
        if self.bias is not None:
            tile.add_(self.bias[words])
        return tile if self.temperature == 1 else tile.div_(self.temperature)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def places(token_ids: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Where in a tile's words each token is, and whether it is there at all."""
    place = token_ids - words.start
    last = words.stop - words.start - 1
    return place.clamp(0, last), (place >= 0) & (place <= last)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    with torch.autocast(total.device.type, enabled=False):
        if total.dtype == left.dtype:
            total.addmm_(left, right)
        elif total.is_cuda:
            torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
        else:
            total += left @ right


def to_gradient(
    tile: Tensor,
    places: tuple[Tensor, Tensor],
    of_logprobs: Tensor | None,
    of_entropy: Tensor | None,
    entropy: Tensor,
    spare: Tensor,
) -> None:
    """Turns a tile of log-probabilities into the gradient of its logits, in place."""
    if of_entropy is None:
        tile.exp_()
        if of_logprobs is not None:
            tile.mul_(-of_logprobs.unsqueeze(1))
    else:
        factor = torch.clamp(tile, min=LEAST, out=spare).add_(entropy.unsqueeze(1)).mul_(of_entropy.unsqueeze(1))
        if of_logprobs is not None:
            factor.add_(of_logprobs.unsqueeze(1))
        tile.exp_().mul_(factor.neg_())
    if of_logprobs is not None:
        place, inside = places
        tile.scatter_add_(1, place.unsqueeze(1), torch.where(inside, of_logprobs, 0).unsqueeze(1))


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
