"""What many tests share: gradients under a fixed cotangent, and comparison in half precision."""

from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
ALL_FLOATS = (*HALF, torch.float32, torch.float64)


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The result and its gradients, every element of the result weighing differently."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    weights = torch.linspace(1, 2, result.numel(), dtype=result.dtype).view(result.shape)
    return result.detach(), *torch.autograd.grad((result * weights).sum(), leaves)


def assert_same(actual: object, expected: object, *, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    """Equal up to the rounding of float64, NaN equal to NaN."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)


def assert_rounded(actual: Tensor, exact: Tensor, dtype: torch.dtype, *, slack: float = 2e-6) -> None:
    """Of this dtype, and within half a unit in the last place of the exact result (plus float32's own error)."""
    assert actual.dtype == dtype
    half_unit = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(actual.double(), exact, rtol=half_unit + slack, atol=slack)
