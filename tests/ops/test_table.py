"""Properties of the contract that hold for every function alike."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

import clipo_ops
from clipo_ops import GroupLayout

from . import oracles
from .helpers import ALL_FLOATS, HALF, assert_equal, assert_nearly_equal
from .table import CASES, EAGER_CASES, PUBLIC, Case

FUNCTIONS = {name for name, value in PUBLIC.items() if inspect.isfunction(value)}
# A ratio of half-precision log-probabilities needs float32.
FLOAT32_FOR_HALF = {"log_ratio", "linear_token_logprobs"} | {
    name for name in FUNCTIONS if name.endswith("_loss") and name != "contrastive_loss"
}
every_case = pytest.mark.parametrize("case", EAGER_CASES, ids=str)


def floats(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def test_the_table_covers_every_public_function() -> None:
    assert {case.op for case in CASES} == FUNCTIONS


def test_every_public_function_has_an_oracle() -> None:
    assert {name for name in FUNCTIONS if not hasattr(oracles, name)} == set()


@pytest.mark.parametrize("dtype", ALL_FLOATS, ids=str)
@every_case
def test_the_output_has_the_dtype_of_the_input(case: Case, dtype: torch.dtype) -> None:
    inputs = case.inputs(dtype)
    widened = case.op in FLOAT32_FOR_HALF and dtype.itemsize == 2
    expected = torch.float32 if widened or not floats(inputs) else dtype
    assert {leaf.dtype for leaf in floats(case(inputs))} <= {expected}


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64], ids=str)
@every_case
def test_the_default_dtype_changes_nothing(case: Case, default: torch.dtype) -> None:
    inputs = case.inputs()
    expected = case(inputs)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        actual = case(inputs)
    finally:
        torch.set_default_dtype(before)
    assert_equal(actual, expected)


@every_case
def test_autocast_changes_nothing(case: Case) -> None:
    inputs = case.inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = case(inputs)
    assert_nearly_equal(actual, case(inputs))


@every_case
def test_inputs_are_left_alone(case: Case) -> None:
    inputs = case.inputs()
    case(inputs)
    assert_equal(tree_leaves(inputs), tree_leaves(case.inputs()))


def spread(x: Tensor) -> Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]


def turned(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else x


@pytest.mark.parametrize("strided", [spread, turned])
@every_case
def test_strides_change_nothing(case: Case, strided: Callable[[Tensor], Tensor]) -> None:
    def seeded(inputs: dict[str, Any]) -> Any:
        torch.manual_seed(0)
        return case(inputs)

    inputs = case.inputs()
    assert_nearly_equal(seeded(tree_map_only(Tensor, strided, inputs)), seeded(inputs))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("size", [1, 1000, 60_000])
@pytest.mark.parametrize("case", [case for case in EAGER_CASES if case.op != "linear_token_logprobs"], ids=str)
def test_half_precision_is_finite_where_float32_is(case: Case, size: float, dtype: torch.dtype) -> None:
    """But for products with the head's weights, which are those of their dtype."""

    def large(x: Tensor) -> Tensor:
        return (x.double() * size).clamp(-60_000, 60_000).to(dtype) if x.is_floating_point() else x

    def seeded(inputs: dict[str, Any]) -> list[Tensor]:
        torch.manual_seed(0)
        return floats(case(inputs))

    half = tree_map_only(Tensor, large, case.inputs(dtype))
    single = tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, half)
    for low, high in zip(seeded(half), seeded(single), strict=True):
        assert_equal(low.isfinite(), high.isfinite())


@every_case
def test_gradients_are_finite(case: Case) -> None:
    inputs = tree_map_only(Tensor, lambda x: x.requires_grad_() if x.is_floating_point() else x, case.inputs())
    results = [result for result in floats(case(inputs)) if result.requires_grad]
    assert bool(results) is not (case.op in NO_GRADIENT)
    if results:
        leaves = floats(inputs)
        grads = torch.autograd.grad(sum(r.sum() for r in results), leaves, allow_unused=True)
        assert all(grad is None or grad.isfinite().all() for grad in grads)


NO_GRADIENT = {
    "aggregate_denominator",
    "approximate_kl",
    "clamp_fraction",
    "clip_fraction",
    "contrastive_anchors",
    "consensus_reward",
    "contrastive_reward",
    "cosine_length_reward",
    "degenerate_fraction",
    "divergence_mask",
    "effective_sample_size",
    "gae_advantages",
    "group_similarity",
    "importance_ratio_mask",
    "group_token_counts",
    "informative_groups",
    "length_bucket_similarity",
    "latent_grpo_reward",
    "negative_credit",
    "noise_share",
    "overlong_penalty",
    "pass_at_k_advantages",
    "pass_rate_length_penalty",
    "process_gap",
    "repetition_penalty",
    "reward_by_verdict",
    "reward_inversions",
    "shear_weights",
    "masked_importance_weights",
    "off_policy_sequence_mask",
    "second_moment_mask",
    "veto_mask",
    "top_entropy_mask",
    "truncated_importance_weights",
}


@every_case
def test_no_function_but_the_sampling_one_draws_random_numbers(case: Case) -> None:
    objective = case.options.get("objective", clipo_ops.infonce)
    by_objective = case.op in ("contrastive_loss", "clipo_rewards") and objective is clipo_ops.infonce
    samples = case.op in ("infonce", "clip_cov_surrogate") or by_objective
    before = torch.get_rng_state()
    case(case.inputs())
    assert torch.equal(before, torch.get_rng_state()) is not samples


@every_case
def test_works_in_inference_mode(case: Case) -> None:
    with torch.inference_mode():
        actual = case(case.inputs())
    assert_nearly_equal(actual, case(case.inputs()))


@every_case
def test_no_rollouts_have_a_result_and_a_gradient(case: Case) -> None:
    def none(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return GroupLayout.from_ids(torch.zeros(0).long())
        value = value if name in ("weight", "bias", "denominator") else value[:0]
        return value.requires_grad_() if value.is_floating_point() else value

    inputs = {name: none(name, value) for name, value in case.inputs().items()}
    results = [result for result in floats(case(inputs)) if result.requires_grad]
    assert bool(results) is not (case.op in NO_GRADIENT)
    if results:
        grads = torch.autograd.grad(sum(r.sum() for r in results), floats(inputs), allow_unused=True)
        assert all(grad is None or grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("case", [case for case in EAGER_CASES if "groups" in case.arguments], ids=str)
def test_no_rollouts_are_as_good_by_their_ids_as_by_a_layout(case: Case) -> None:
    available = {name: value for name, value in case.inputs().items() if name != "groups"}
    inputs = {name: value[:0] if value.ndim else value for name, value in available.items()}
    by_layout = case({**inputs, "groups": GroupLayout.from_size(0, 4, device="cpu")})
    assert_equal(case({**inputs, "groups": torch.zeros(0).long()}), by_layout)
    assert_equal(case({**inputs, "groups": GroupLayout.from_ids(torch.zeros(0).long())}), by_layout)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64], ids=str)
def test_any_integers_are_group_ids(dtype: torch.dtype) -> None:
    ids = torch.tensor([5, -3, 5, 100, -3], dtype=dtype)
    assert_equal(GroupLayout.from_ids(ids), GroupLayout.from_ids(ids.long()))
    rewards = torch.arange(5.0)
    assert_equal(clipo_ops.grpo_advantages(rewards, ids), clipo_ops.grpo_advantages(rewards, ids.long()))
