"""Bad values get one line that names the argument, what was expected and what it got; bad shapes get a type error."""

import inspect
import re
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

import clipo_ops
from clipo_ops import GroupLayout

from .table import BAD_VALUES, EAGER_CASES, ONE_OF_EACH, PUBLIC, Case

# Every choice by name is a Literal; the other bad values stand beside the oracles.
CHOICES = [
    (name, parameter.name, ["no choice", "", "Mean"], f"one of {', '.join(map(repr, get_args(parameter.annotation)))}")
    for name, value in PUBLIC.items()
    if inspect.isfunction(value)
    for parameter in inspect.signature(value).parameters.values()
    if get_origin(parameter.annotation) is Literal
]
BAD = [pytest.param(op, name, bad, wanted) for op, name, values, wanted in [*CHOICES, *BAD_VALUES] for bad in values]
OF = {case.op: case for case in ONE_OF_EACH}


@pytest.mark.parametrize(("op", "argument", "bad", "wanted"), BAD)
def test_a_bad_value_is_named_with_what_was_wanted(op: str, argument: str, bad: Any, wanted: str) -> None:
    call = OF[op].function
    line = f"{re.escape(argument)}: expected .*{re.escape(wanted)}.*, got {re.escape(repr(bad))}"
    with pytest.raises(ValueError, match=f"^{line}$"):
        call(**OF[op].inputs(), **{**OF[op].options, argument: bad})


@pytest.mark.parametrize("bad", [None, 0, -1])
def test_the_normalised_sum_needs_a_maximum_length(bad: int | None) -> None:
    with pytest.raises(ValueError, match=rf"^max_length: expected .*seq-mean-token-sum-norm.*, got {bad}$"):
        clipo_ops.aggregate_denominator(torch.ones(1, 1).bool(), mode="seq-mean-token-sum-norm", max_length=bad)


def test_the_normalised_sum_needs_a_denominator() -> None:
    with pytest.raises(ValueError, match=r"^max_length: expected .*give aggregate a denominator.*, got None$"):
        clipo_ops.aggregate(torch.ones(1, 1), torch.ones(1, 1).bool(), mode="seq-mean-token-sum-norm")


def test_a_prompt_mean_needs_the_groups_tokens() -> None:
    ones = torch.ones(1, 1)
    for function, inputs in (
        (clipo_ops.aggregate, (ones, ones.bool())),
        (clipo_ops.aggregate_denominator, (ones.bool(),)),
    ):
        with pytest.raises(ValueError, match=r"^group_tokens: expected .*group_token_counts.*prompt-mean.*, got None$"):
            function(*inputs, mode="prompt-mean")


def test_dr_grpo_needs_a_maximum_length_or_a_denominator() -> None:
    inputs = {name: value for name, value in OF["dr_grpo_loss"].inputs().items() if name != "denominator"}
    with pytest.raises(ValueError, match=r"^max_length: expected .*give aggregate a denominator.*, got None$"):
        clipo_ops.dr_grpo_loss(**inputs)


@pytest.mark.parametrize(
    ("rollouts", "size", "line"),
    [
        (6, 0, "size: expected at least 1, got 0"),
        (-2, 2, "rollouts: expected at least 0, got -2"),
        (7, 2, "rollouts: expected a multiple of the group size 2, got 7"),
    ],
)
def test_a_layout_of_an_impossible_size(rollouts: int, size: int, line: str) -> None:
    with pytest.raises(ValueError, match=rf"^{line}$"):
        GroupLayout.from_size(rollouts, size, device="cpu")


@pytest.mark.parametrize(
    "case", [c for c in EAGER_CASES if c.arguments.get("groups") in ("layout", "ordered")], ids=str
)
def test_a_layout_of_another_batch(case: Case) -> None:
    other = GroupLayout.from_size(8, 4, device="cpu")
    with pytest.raises(ValueError, match=r"^groups: expected 12 rollouts, got 8$"):
        case({**case.inputs(), "groups": other})


TENSORS = [
    pytest.param(case, argument, id=f"{case}-{argument}")
    for case in EAGER_CASES
    for argument, value in case.inputs().items()
    if isinstance(value, Tensor) and case.op != "gather_rollouts"  # which takes any
]


@pytest.mark.parametrize(("case", "argument"), TENSORS)
def test_one_axis_too_many_is_a_type_error(case: Case, argument: str) -> None:
    inputs = case.inputs()
    with pytest.raises(TypeCheckError):
        case({**inputs, argument: inputs[argument].unsqueeze(-1)})


@pytest.mark.parametrize(("case", "argument"), TENSORS)
def test_another_kind_of_dtype_is_a_type_error(case: Case, argument: str) -> None:
    inputs = case.inputs()
    other = torch.int64 if inputs[argument].is_floating_point() else torch.float32
    with pytest.raises(TypeCheckError):
        case({**inputs, argument: inputs[argument].to(other)})


@pytest.mark.parametrize(
    ("case", "argument"),
    [p for p in TENSORS if len(p.values[0].arguments) > 1 and p.values[1] not in ("denominator", "weight")],
)
def test_one_rollout_too_few_is_a_type_error(case: Case, argument: str) -> None:
    inputs = case.inputs()
    error = ValueError if isinstance(inputs.get("groups"), GroupLayout) and len(inputs) == 2 else TypeCheckError
    with pytest.raises(error):
        case({**inputs, argument: inputs[argument][1:]})


@pytest.mark.parametrize(
    ("op", "argument"),
    [
        ("mean_pool", "mask"),
        ("last_token_pool", "mask"),
        ("max_pool", "mask"),
        ("weighted_pool", "weights"),
        ("linear_token_logprobs", "token_ids"),
        ("linear_token_logprobs", "weight"),
        ("approximate_kl", "mask"),
        ("clip_fraction", "mask"),
        ("log_ratio", "mask"),
        ("log_ratio", "old_logprobs"),
        ("token_logprobs", "token_ids"),
        ("kl_estimate", "ref_logprobs"),
        ("aggregate", "mask"),
        ("whiten", "mask"),
        ("reinforce_plus_plus_advantages", "mask"),
        ("gae_advantages", "values"),
        ("gae_advantages", "mask"),
        ("supcon_out", "positives"),
        ("infonce", "candidates"),
        ("cispo_surrogate", "logprobs"),
        ("geometric_mean_surrogate", "mask"),
        ("kl_cov_surrogate", "advantages"),
        ("top_entropy_mask", "entropy"),
        ("grpo_loss", "old_logprobs"),
    ],
)
def test_one_token_or_candidate_too_few_is_a_type_error(op: str, argument: str) -> None:
    inputs = OF[op].inputs()
    with pytest.raises(TypeCheckError):
        OF[op]({**inputs, argument: inputs[argument][:, 1:]})
