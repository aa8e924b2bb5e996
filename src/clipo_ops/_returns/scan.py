"""Sums over what is still to come. Time runs over valid tokens: a hole in the mask is stepped over."""

import torch
from torch import Tensor


def scored(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """Whether a rollout has a finite reward at every valid token, as a column."""
    return (token_rewards.isfinite() | mask.logical_not()).all(1, keepdim=True)


def discounted_sums(values: Tensor, mask: Tensor, factor: float | Tensor) -> Tensor:
    """At each valid token, its value plus the factor times the sum at the next valid one; 0 elsewhere."""
    factors = torch.where(mask, torch.as_tensor(factor, dtype=values.dtype, device=values.device), 1)
    return torch.where(mask, _scan(values, factors), 0)


def next_values(values: Tensor, mask: Tensor) -> Tensor:
    """The value at the next valid token; 0 after the last one."""
    return _shift(_scan(torch.where(mask, values, 0), mask.logical_not().to(values.dtype)), 1)


def _scan(values: Tensor, factors: Tensor) -> Tensor:
    """Solves $y_t = v_t + f_t y_{t+1}$ over the tokens.

    By doubling: after each step, y holds the contributions of twice as many tokens, and f the product of their factors.
    Nothing is divided by a power of a factor, so nothing overflows. A graph takes 20 steps, enough for a million
    tokens, so that one graph serves all lengths.
    """
    length = values.shape[1]
    steps = 20 if torch.compiler.is_compiling() else length.bit_length()
    for exponent in range(steps):
        values = values + factors * _shift(values, 2**exponent)
        factors = factors * _shift(factors, 2**exponent)
    return values


def _shift(values: Tensor, places: int) -> Tensor:
    """The value some tokens further on; 0 beyond the end."""
    length = values.shape[1]
    source = torch.arange(length, device=values.device) + places
    return torch.where(source < length, values.index_select(1, source.clamp(max=length - 1)), 0)
