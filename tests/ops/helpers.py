"""What many tests share: gradients under a fixed cotangent, and comparisons of numbers.

Which comparison is whose:

- `assert_equal`, to the bit: copies, integers, exact zeros, and one sequence of kernels run twice on one memory layout
  in one process, as where garbage lies under a mask.
- `assert_nearly_equal`: the same arithmetic in the same dtype, where another kernel, memory layout, thread count or
  instruction set may sum in another order. A strided operand is enough for that: MKL chooses its kernel by the strides.
- `assert_same`: two formulas in float64.
- `assert_rounded`: a result in low precision next to the exact one.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

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


def assert_equal(actual: object, expected: object) -> None:
    """Equal to the bit, NaN equal to NaN."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def assert_nearly_equal(actual: object, expected: object) -> None:
    """Equal up to 64 units in the last place, 2 in half precision, which is rounded once; what is no float, exactly."""
    for one, other in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        is_float = isinstance(one, Tensor) and one.is_floating_point()
        bound = (2 if one.dtype in HALF else 64) * torch.finfo(one.dtype).eps if is_float else 0.0
        torch.testing.assert_close(one, other, rtol=bound, atol=bound, equal_nan=True)


def assert_rounded(actual: Tensor, exact: Tensor, dtype: torch.dtype, *, slack: float = 2e-6) -> None:
    """Of this dtype, and within half a unit in the last place of the exact result (plus float32's own error)."""
    assert actual.dtype == dtype
    half_unit = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(actual.double(), exact, rtol=half_unit + slack, atol=slack)
