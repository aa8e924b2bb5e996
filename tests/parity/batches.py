"""Batches that every peer can take: no empty rollout, and log-ratios that no peer overflows at."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import clipped_surrogate, log_ratio

from ..ops.strategies import SEEDS, noise


class Tokens(NamedTuple):
    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor
    entropy: Tensor


@st.composite
def tokens(draw: st.DrawFn, *, holes: bool = True) -> Tokens:
    """Responses of one to seven tokens, some with a hole; ratios near 1, far from it, or exactly 1."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=6))
    rows, width = len(lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    if holes and draw(st.booleans()):
        mask[:, width // 2] = mask[:, width // 2] & (torch.tensor(lengths) == 1)
    seed = draw(SEEDS)
    logprobs = -noise(seed, rows, width).abs()
    difference = noise(seed + 1, rows, width) * draw(st.sampled_from([0.0, 0.1, 1.0]))
    old_logprobs = torch.where(difference == 0, logprobs, (logprobs - difference).clamp(max=-0.01))
    advantages = noise(seed + 2, rows) * torch.tensor(draw(st.sampled_from([0.0, 1.0])), dtype=torch.float64)
    return Tokens(logprobs, old_logprobs, advantages, mask, noise(seed + 3, rows, width).abs())


@st.composite
def rewards(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Rewards of equal groups in order, each with two different ones; and the size of a group."""
    size, groups = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    values = noise(draw(SEEDS), groups, size)
    if draw(st.booleans()):
        values = (values > 0).double()
        values[:, 0], values[:, 1] = 0, 1
    return values.flatten(), size


def ours(loss: Callable[[Tensor, Tokens], Tensor], batch: Tokens) -> tuple[Tensor, Tensor]:
    """A loss and its gradient by the log-probabilities."""
    leaf = batch.logprobs.clone().requires_grad_()
    value = loss(leaf, batch)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def clipped_tokens(logprobs: Tensor, batch: Tokens, **bounds: float) -> Tensor:
    """The clipped surrogate per token."""
    return clipped_surrogate(log_ratio(logprobs, batch.old_logprobs, batch.mask), batch.advantages, **bounds).loss


class Rollouts(NamedTuple):
    rewards: Tensor
    groups: Tensor
    mask: Tensor


@st.composite
def rollouts(draw: st.DrawFn) -> Rollouts:
    """Rewards in interleaved groups of two to four, each with two different ones."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    order = torch.tensor(draw(st.permutations(range(sum(sizes)))))
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[order]
    values = noise(draw(SEEDS), sum(sizes))
    if draw(st.booleans()):
        values = torch.tensor([float(i == 0) for size in sizes for i in range(size)], dtype=torch.float64)[order]
    lengths = torch.tensor(draw(st.lists(st.integers(2, 6), min_size=sum(sizes), max_size=sum(sizes))))
    mask = torch.arange(6) < lengths.unsqueeze(1)
    mask[:, 1] &= torch.tensor(draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))))
    return Rollouts(values, groups, mask)
