"""Every function runs on fake tensors: nothing reads a tensor's content, nothing lives on a default device."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from clipo_ops import GroupLayout

from .table import CASES, Case


def tensors(results: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]


def fake(inputs: dict[str, Any], device: str) -> dict[str, Any]:
    """Fake tensors of the same shapes and dtypes, within a FakeTensorMode."""
    return tree_map_only(Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype, device=device), inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shape_dtype_and_device_on_another_device(case: Case, dtype: torch.dtype) -> None:
    inputs = case.inputs(dtype)
    expected = tensors(case(inputs))
    with FakeTensorMode():
        results = tensors(case(fake(inputs, "cuda")))
    assert [(r.shape, r.dtype) for r in results] == [(e.shape, e.dtype) for e in expected]
    assert {r.device.type for r in results} == {"cuda"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward(case: Case) -> None:
    inputs = case.inputs()
    with FakeTensorMode():
        fakes = tree_map_only(Tensor, lambda x: x.requires_grad_() if x.is_floating_point() else x, fake(inputs, "cpu"))
        leaves = [leaf for leaf in tensors(fakes) if leaf.requires_grad]
        roots = [result for result in tensors(case(fakes)) if result.requires_grad]
        grads = torch.autograd.grad([r.sum() for r in roots], leaves, allow_unused=True) if roots else []
    for leaf, grad in zip(leaves, grads, strict=bool(roots)):
        assert grad is None or (isinstance(grad, FakeTensor) and grad.shape == leaf.shape)


def test_a_layout_from_a_size_never_waits_for_the_device() -> None:
    with FakeTensorMode():
        layout = GroupLayout.from_size(12, 4, device="cuda")
        values = torch.empty(12, 3, device="cuda")
        assert layout.scatter(layout.gather(values)).device.type == "cuda"
        assert layout.valid.shape == (3, 4)
