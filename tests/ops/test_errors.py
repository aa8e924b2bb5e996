"""Bad values get one line that names the argument, what was expected and what it got; bad shapes get a type error."""

import math
import re
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

import clipo_ops
from clipo_ops import GroupLayout

from .table import EAGER_CASES, ONE_OF_EACH, Case

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("aggregate", "mode", ["sum", "", "Token-Mean"], "token-mean, seq-mean-token-mean"),
    ("aggregate", "denominator", [0, -1.5, math.nan], "positive"),
    ("aggregate_denominator", "mode", ["sum"], "token-mean, seq-mean-token-mean"),
    ("clamp_fraction", "floor", [0.1, math.nan], "at most 0"),
    ("clipped_surrogate", "epsilon_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("clipped_surrogate", "epsilon_high", [-0.1, math.nan], "at least 0"),
    ("clipped_surrogate", "dual_clip", [1, 0.5, math.nan], "above 1 or None"),
    ("combine_rewards", "method", ["mean", "GDPO"], "'sum' or 'gdpo'"),
    ("combine_rewards", "weights", [(), (1.0,)], "one number per signal"),
    ("combine_rewards", "eps", [-1e-6, math.nan], "at least 0"),
    ("cispo_loss", "ratio_high", [0.9], "at least 1"),
    ("consensus_reward", "weight", [-0.1, math.nan], "at least 0"),
    ("consensus_reward", "bandwidth", [0, -1, math.nan], "above 0"),
    ("consensus_reward", "gate", [0.0, 1.0, math.nan], "None or a number in (0, 1)"),
    ("cispo_surrogate", "ratio_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("cispo_surrogate", "ratio_high", [0.9, math.nan], "at least 1"),
    ("clip_cov_surrogate", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("clip_cov_surrogate", "covariance_high", [0.1, 0.05, math.nan], "above covariance_low"),
    ("clipo_rewards", "temperature", [0], "above 0"),
    ("clipo_rewards", "floor", [0.1], "at most 0"),
    ("clipped_surrogate", "epsilon_low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("clipped_surrogate", "epsilon_high", [-0.1, math.nan], "at least 0"),
    ("clipped_surrogate", "dual_clip", [1, 0.5, math.nan], "above 1 or None"),
    ("clipped_surrogate", "delta", [1, 0.5, math.nan], "above 1 or None"),
    ("contrastive_loss", "temperature", [0, -0.05, math.nan], "above 0"),
    ("contrastive_anchors", "scope", ["all", "Group"], "'group', 'cross' or 'batch'"),
    ("contrastive_anchors", "anchors", ["wrong", ""], "'success' or 'all'"),
    ("contrastive_loss", "scope", ["all", "Group"], "'group', 'cross' or 'batch'"),
    ("contrastive_loss", "anchors", ["wrong", ""], "'success' or 'all'"),
    ("contrastive_loss", "similarity", ["dot", "L2"], "'cosine' or 'l2'"),
    ("contrastive_loss", "floor", ["log", ""], "'none' or 'log_positives'"),
    ("contrastive_loss", "reduction", ["max", ""], "'mean', 'sum' or 'none'"),
    ("contrastive_reward", "weight", [-0.1, math.nan], "at least 0"),
    ("contrastive_reward", "floor", [0.1, math.nan], "at most 0"),
    ("gae_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("gae_advantages", "gae_lambda", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("gdpo_advantages", "weights", [(), (1.0,)], "one number per signal"),
    ("gdpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("gpg_advantages", "scale", [0, -1, math.nan], "above 0"),
    ("grpo_advantages", "scale", ["std", "None"], "'group', 'batch' or 'none'"),
    ("grpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("guarded_rewards", "margin", [-0.1, math.nan], "at least 0"),
    ("log_ratio", "limit", [0, -20, math.nan], "above 0"),
    ("maxrl_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("overlong_penalty", "max_length", [0, -1], "at least 1"),
    ("overlong_penalty", "buffer", [0, -1, 7], "from 1 to max_length"),
    ("overlong_penalty", "factor", [-0.1, math.nan], "at least 0"),
    ("pass_at_k_advantages", "k", [0, -1], "at least 1"),
    ("reinforce_plus_plus_advantages", "discount", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("reinforce_plus_plus_advantages", "eps", [-1e-8, math.nan], "at least 0"),
    ("reinforce_plus_plus_baseline_advantages", "eps", [-1e-8, math.nan], "at least 0"),
    ("kl_estimate", "estimator", ["k4", "K1"], "'k1', 'k2', 'k3' or 'k3+'"),
    ("linear_token_logprobs", "chunk_size", [0, -1], "at least 1"),
    ("linear_token_logprobs", "temperature", [0, -1, math.nan], "above 0"),
    ("linear_token_logprobs", "keep_logits", [-0.1, 1.1, math.nan], "in [0, 1]"),
    ("log_ratio", "limit", [0, -20, math.nan], "above 0"),
    ("noise_share", "temperature", [0, -0.05, math.nan], "above 0"),
    ("segment_mean_pool", "num_segments", [0, -1], "at least 1"),
    ("token_entropy", "temperature", [0, -1, math.nan], "above 0"),
    ("token_logprobs", "temperature", [0, -1, math.nan], "above 0"),
    ("whiten", "eps", [-1e-8, math.nan], "at least 0"),
    ("dapo_loss", "denominator", [0, -1], "positive"),
    ("dppo_surrogate", "divergence", ["TV", ""], "'tv' or 'kl'"),
    ("dppo_surrogate", "threshold_low", [-0.1, math.nan], "at least 0"),
    ("dppo_surrogate", "threshold_high", [-0.1, math.nan], "at least 0"),
    ("dppo_surrogate", "ratio_high", [0.9, math.nan], "at least 1"),
    ("dr_grpo_loss", "epsilon_low", [-0.1], "[0, 1]"),
    ("geometric_mean_surrogate", "clip_low", [-0.1, math.nan], "at least 0"),
    ("geometric_mean_surrogate", "clip_high", [-0.1, math.nan], "at least 0"),
    ("gmpo_loss", "clip_low", [-0.1], "at least 0"),
    ("grpo_advantages", "scale", ["std", "None"], "'group', 'batch' or 'none'"),
    ("grpo_advantages", "eps", [-1e-6, math.nan], "at least 0"),
    ("grpo_loss", "epsilon_high", [-0.1], "at least 0"),
    ("gspo_loss", "epsilon_low", [1.1], "[0, 1]"),
    ("kl_cov_surrogate", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("kl_cov_surrogate", "kl_weight", [-0.1, math.nan], "at least 0"),
    ("log_ratio", "limit", [0, -20, math.nan], "above 0"),
    ("luspo_loss", "epsilon_low", [1.1], "[0, 1]"),
    ("masked_importance_weights", "low", [-0.1, 1.1, math.nan], "[0, 1]"),
    ("masked_importance_weights", "high", [0.9, math.nan], "at least 1"),
    ("masked_importance_weights", "level", ["tokens", ""], "'token', 'sequence' or 'geometric'"),
    ("off_policy_sequence_mask", "threshold", [-0.1, math.nan], "at least 0"),
    ("sapo_loss", "temperature_positive", [0], "above 0"),
    ("sapo_surrogate", "temperature_positive", [0, -1, math.nan], "above 0"),
    ("sapo_surrogate", "temperature_negative", [0, -1, math.nan], "above 0"),
    ("token_entropy", "temperature", [0, -1, math.nan], "above 0"),
    ("token_logprobs", "temperature", [0, -1, math.nan], "above 0"),
    ("top_entropy_mask", "fraction", [0, 1.1, math.nan], "(0, 1]"),
    ("truncated_importance_weights", "cap", [0, -1, math.nan], "above 0"),
    ("truncated_importance_weights", "level", ["tokens", ""], "'token', 'sequence' or 'geometric'"),
    ("vespo_loss", "lambda_positive", [0], "above 0"),
    ("vespo_surrogate", "k_positive", [-1, math.nan], "at least 0"),
    ("vespo_surrogate", "k_negative", [-1, math.nan], "at least 0"),
    ("vespo_surrogate", "lambda_positive", [0, math.nan], "above 0"),
    ("vespo_surrogate", "lambda_negative", [0, math.nan], "above 0"),
]
BAD = [pytest.param(op, name, bad, wanted) for op, name, values, wanted in BAD_VALUES for bad in values]
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
