"""Precision: what is computed in float32, and how results are rounded back."""

import torch

EXP_LIMIT = 80.0  # exp(80) is finite in float32, with room for an advantage


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32; float32 and float64 stay as they are (no copy)."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Values in a result's dtype, at its largest finite number where they are finite but beyond it."""
    if dtype.itemsize >= values.dtype.itemsize:
        return values.to(dtype)
    limit = torch.finfo(dtype).max
    return torch.where(values.isinf(), values, values.clamp(-limit, limit)).to(dtype)


def log_difference(logprobs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """A difference of log-probabilities in at least float32; 0, without a gradient, where both are -inf."""
    new, old = at_least_float32(logprobs), at_least_float32(others)
    return torch.where((new == -torch.inf) & (old == -torch.inf), 0, new - old)


def uniform_like(values: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Float32 numbers drawn uniformly from [0, 1), one for each value, whatever the strides.

    `rand_like` takes no generator in older versions of torch, and `rand` none with dynamic shapes.
    """
    if generator is None:
        return torch.rand_like(values, dtype=torch.float32, memory_format=torch.contiguous_format)
    return torch.rand(values.shape, dtype=torch.float32, device=values.device, generator=generator)
