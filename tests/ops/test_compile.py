"""Every function compiles into one graph, static and dynamic, and gives what it gives in eager mode."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._pytree import tree_leaves, tree_map_only

from clipo_ops import GroupLayout, contrastive_loss, grpo_advantages, infonce, supcon_out

from .table import CASES, ONE_OF_EACH, Case

Results = list[Tensor | None]
DYNAMIC = ("contrastive_loss", "grpo_advantages")  # the others are static, to save time

# The compiler's own code warns of its own deprecated parts; ours runs under "error" in every other file.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def values_and_gradients(function: Any, case: Case, rollouts: int = 12) -> Results:
    """All results of a call, and the gradients of all inputs that have one."""
    inputs = tree_map_only(
        Tensor, lambda x: x.requires_grad_() if x.is_floating_point() else x, case.inputs(rollouts=rollouts)
    )
    results = [leaf for leaf in tree_leaves(function(**inputs, **case.options)) if isinstance(leaf, Tensor)]
    values: Results = [result.detach() for result in results]
    roots = [result for result in results if result.requires_grad]
    leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if roots:
        weights = [torch.linspace(1, 2, root.numel(), dtype=root.dtype).view(root.shape) for root in roots]
        values.extend(torch.autograd.grad(roots, leaves, weights, allow_unused=True))
    return values


def assert_compiled_equals_eager(case: Case, backend: str, *, dynamic: bool) -> None:
    compiled = torch.compile(case.function, fullgraph=True, backend=backend, dynamic=dynamic)
    actual, expected = values_and_gradients(compiled, case), values_and_gradients(case.function, case)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_static_graph_equals_eager(case: Case) -> None:
    assert_compiled_equals_eager(case, "aot_eager", dynamic=False)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_generated_code_equals_eager(case: Case) -> None:
    assert_compiled_equals_eager(case, "inductor", dynamic=case.op in DYNAMIC)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_dynamic_graph_equals_eager_and_serves_every_batch_size(case: Case) -> None:
    compiled = torch.compile(case.function, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rollouts in (12, 20, 16):
            actual = values_and_gradients(compiled, case, rollouts)
            expected = values_and_gradients(case.function, case, rollouts)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_all_functions_compile_in_one_process() -> None:
    """More of them than the recompile limit: a code object that they shared would run into it."""
    assert len(ONE_OF_EACH) > torch._dynamo.config.recompile_limit
    counter = CompileCounterWithBackend("eager")
    for case in ONE_OF_EACH:
        torch.compile(case.function, fullgraph=True, backend=counter)(**case.inputs(), **case.options)
    assert counter.frame_count == len(ONE_OF_EACH)


def test_a_layout_from_a_size_may_be_made_inside_a_graph() -> None:
    def loss(embeddings: Tensor, success: Tensor) -> Tensor:
        layout = GroupLayout.from_size(len(success), 4, device=embeddings.device)
        advantages = grpo_advantages(embeddings.sum(1), layout)
        return advantages.sum() + contrastive_loss(embeddings, success, layout, objective=supcon_out)

    arguments = torch.randn(12, 3), torch.arange(12) % 4 < 2
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(*arguments), loss(*arguments))


def test_gather_and_scatter_compile() -> None:
    layout = GroupLayout.from_ids(torch.tensor([4, 2, 4, 4]))
    values = torch.randn(4, 3)
    compiled = torch.compile(lambda x: layout.scatter(layout.gather(x) * 2), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(values), values * 2)


def test_a_compiled_draw_is_that_of_the_global_generator() -> None:
    logits, positives = torch.randn(4, 6), torch.ones(4, 6, dtype=torch.bool)
    torch.manual_seed(0)
    expected = infonce(logits, positives, positives)
    torch.manual_seed(0)
    actual = torch.compile(infonce, fullgraph=True, backend="aot_eager")(logits, positives, positives)
    torch.testing.assert_close(actual, expected)
