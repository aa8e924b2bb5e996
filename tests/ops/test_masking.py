"""Reductions and whitening: one number, however a batch is padded or split, and whatever is under the mask."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, aggregate, aggregate_denominator, group_token_counts, whiten

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, masks, noise

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "prompt-mean", "seq-mean-token-sum-norm"]
every_mode = pytest.mark.parametrize("mode", MODES)


def group_tokens(mask: Tensor) -> Tensor:
    """A batch of three interleaved groups."""
    return group_token_counts(mask, torch.arange(len(mask)) % 3)


def denominator(mask: Tensor, mode: str, counts: Tensor | None = None) -> Tensor:
    counts = group_tokens(mask) if counts is None else counts
    return aggregate_denominator(mask, mode=mode, max_length=9, group_tokens=counts)


def reduce(
    values: Tensor, mask: Tensor, mode: str, total: Tensor | float | None = None, counts: Tensor | None = None
) -> Tensor:
    counts = group_tokens(mask) if counts is None else counts
    if mode == "seq-mean-token-sum-norm" and total is None:
        total = denominator(mask, mode)
    return aggregate(values, mask, mode=mode, denominator=total, group_tokens=counts)


@every_mode
@given(masks(), SEEDS)
def test_agrees_with_the_oracle(mode: str, mask: Tensor, seed: int) -> None:
    values, counts = noise(seed, *mask.shape), group_tokens(mask)
    total = oracles.aggregate_denominator(mask, mode=mode, max_length=9, group_tokens=counts).item()
    for own, actual in ((total, reduce(values, mask, mode)), (7, reduce(values, mask, mode, 7))):
        expected = oracles.aggregate(values, mask, mode=mode, denominator=own, group_tokens=counts)
        assert_same(actual, expected, rtol=1e-6 if mode == "prompt-mean" else 1e-9)  # its denominator is float32


@every_mode
@given(masks())
def test_denominators_agree_with_the_oracle(mode: str, mask: Tensor) -> None:
    assume(mask.any())
    expected = oracles.aggregate_denominator(mask, mode=mode, max_length=9, group_tokens=group_tokens(mask))
    assert_same(denominator(mask, mode), expected.float(), rtol=1e-6)


@given(masks())
def test_group_tokens_agree_with_the_oracle(mask: Tensor) -> None:
    ids = torch.arange(len(mask)) % 3
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_equal(group_token_counts(mask, groups), oracles.group_token_counts(mask, ids))


@every_mode
@given(st.sampled_from(HALF), masks(), SEEDS)
def test_half_precision_is_rounded_once(mode: str, dtype: torch.dtype, mask: Tensor, seed: int) -> None:
    values = noise(seed, *mask.shape).to(dtype)
    exact = oracles.aggregate(values, mask, mode=mode, denominator=3, group_tokens=group_tokens(mask))
    assert_rounded(reduce(values, mask, mode, 3), exact, dtype)


@every_mode
@given(masks(), SEEDS)
def test_passes_gradcheck(mode: str, mask: Tensor, seed: int) -> None:
    values = noise(seed, *mask.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reduce(x, mask, mode), (values,), fast_mode=True)


@every_mode
@given(masks(), SEEDS, st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(
    mode: str, mask: Tensor, seed: int, rubbish: float
) -> None:
    clean = noise(seed, *mask.shape)
    dirty = torch.where(mask, clean, rubbish)
    expected = gradients(lambda x: reduce(x, mask, mode), clean)
    assert_equal(gradients(lambda x: reduce(x, mask, mode), dirty), expected)


@every_mode
@given(masks(), SEEDS, st.integers(0, 3), st.integers(0, 3))
def test_padding_of_any_length_on_any_side_changes_nothing(
    mode: str, mask: Tensor, seed: int, left: int, right: int
) -> None:
    values = noise(seed, *mask.shape)
    padded = torch.nn.functional.pad(values, (left, right), value=7.0)
    assert_same(reduce(padded, torch.nn.functional.pad(mask, (left, right)), mode), reduce(values, mask, mode))


@every_mode
@given(masks(), SEEDS, st.sets(st.integers(1, 4)))
def test_micro_batches_add_up_to_the_whole_in_value_and_gradient(
    mode: str, mask: Tensor, seed: int, cuts: set[int]
) -> None:
    """Groups are split, too."""
    values, whole, counts = noise(seed, *mask.shape), denominator(mask, mode), group_tokens(mask)

    def in_parts(x: Tensor) -> Tensor:
        parts = []
        for rows, own, tokens in zip(*(t.tensor_split(sorted(cuts)) for t in (x, mask, counts)), strict=True):
            last = int(own.any(0).nonzero().max()) + 1 if own.any() else 0  # every part has a width of its own
            parts.append(reduce(rows[:, :last], own[:, :last], mode, whole, tokens))
        return torch.stack(parts).sum()

    assert_same(gradients(in_parts, values), gradients(lambda x: reduce(x, mask, mode, whole), values))


@every_mode
@given(masks(), st.integers(1, 4))
def test_denominators_add_up_over_ranks(mode: str, mask: Tensor, cut: int) -> None:
    """Also where a rank has no valid token at all."""
    whole = torch.cat([mask, torch.ones_like(mask[:1])])
    split = zip(*(t.tensor_split([cut]) for t in (whole, group_tokens(whole))), strict=True)
    assert_same(sum(denominator(part, mode, tokens) for part, tokens in split), denominator(whole, mode), rtol=1e-6)


@every_mode
@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3)])
def test_without_a_valid_token_the_result_is_a_differentiable_zero(mode: str, shape: tuple[int, int]) -> None:
    values = torch.full(shape, torch.nan)
    value, grad = gradients(lambda x: reduce(x, torch.zeros(shape, dtype=torch.bool), mode), values)
    assert value.item() == 0
    assert grad.count_nonzero() == 0


@pytest.mark.parametrize("mode", MODES[:4])
@given(masks())
def test_a_constant_has_the_mean_that_the_mode_says(mode: str, mask: Tensor) -> None:
    ones = torch.ones(mask.shape)
    mean_length = mask.sum() / mask.any(1).sum().clamp(min=1)
    expected = mean_length if mode == "seq-mean-token-sum" else mask.any().float()
    torch.testing.assert_close(reduce(ones, mask, mode), expected)


def test_dr_grpo_divides_by_a_constant_whatever_the_lengths() -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert aggregate(torch.ones(2, 4), mask, mode="seq-mean-token-sum-norm", denominator=2 * 4).item() == 5 / 8


def test_a_sum_of_4097_ones_in_bfloat16_is_not_stuck() -> None:
    values, mask = torch.ones(1, 4097, dtype=torch.bfloat16), torch.ones(1, 4097, dtype=torch.bool)
    assert aggregate(values, mask, mode="token-mean").item() == 1
    assert aggregate(values, mask, mode="seq-mean-token-mean").item() == 1


@every_mode
def test_a_large_denominator_is_given_as_a_number_or_a_tensor(mode: str) -> None:
    values, mask = noise(0, 2, 3), torch.ones(2, 3, dtype=torch.bool)
    assert_same(reduce(values, mask, mode, torch.tensor(1000.0)), reduce(values, mask, mode, 1000))


@given(masks(), SEEDS)
def test_a_prompt_mean_weighs_all_prompts_the_same(mask: Tensor, seed: int) -> None:
    values, ids = noise(seed, *mask.shape), torch.arange(len(mask)) % 3
    prompts = [ids == i for i in range(3)]
    means = [aggregate(values[own], mask[own]) for own in prompts if mask[own].any()]
    expected = torch.stack(means).mean() if means else torch.zeros(()).double()
    assert_same(reduce(values, mask, "prompt-mean"), expected, rtol=1e-6)
    assert_same(denominator(mask, "prompt-mean"), torch.tensor(float(len(means))), rtol=1e-6)


def test_the_prompt_mean_of_one_prompt_is_its_token_mean_and_of_singletons_that_of_rollouts() -> None:
    values, mask = noise(0, 3, 4), torch.arange(4) < torch.tensor([[4], [1], [2]])
    for ids, mode in ((torch.zeros(3).long(), "token-mean"), (torch.arange(3), "seq-mean-token-mean")):
        actual = aggregate(values, mask, mode="prompt-mean", group_tokens=group_token_counts(mask, ids))
        assert_same(actual, aggregate(values, mask, mode=mode), rtol=1e-6)


def test_rollouts_without_a_token_are_not_counted() -> None:
    """As in verl; TRL divides by all rollouts."""
    mask = torch.tensor([[True, True], [False, False]])
    assert aggregate_denominator(mask, mode="seq-mean-token-sum-norm", max_length=10) == 10
    assert aggregate_denominator(mask, mode="seq-mean-token-mean") == 1


@given(masks(), SEEDS, st.booleans(), st.sampled_from([1e-8, 0.1]))
def test_whitening_agrees_with_the_oracle(mask: Tensor, seed: int, shift_mean: bool, eps: float) -> None:
    values = noise(seed, *mask.shape)
    expected = oracles.whiten(values, mask, shift_mean=shift_mean, eps=eps)
    assert_same(whiten(values, mask, shift_mean=shift_mean, eps=eps), expected)
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whiten(x, mask, shift_mean=shift_mean, eps=0.1), (values,))


@given(masks(), SEEDS, st.sampled_from(HALF))
def test_whitening_rounds_half_precision_once(mask: Tensor, seed: int, dtype: torch.dtype) -> None:
    values = noise(seed, *mask.shape).to(dtype)
    assert_rounded(whiten(values, mask), oracles.whiten(values, mask), dtype, slack=1e-4)


@given(masks(), SEEDS, st.floats(-1e3, 1e3), st.sampled_from([0.01, 1.0, 100.0]))
def test_whitened_values_have_no_unit_and_no_origin(mask: Tensor, seed: int, shift: float, unit: float) -> None:
    values = noise(seed, *mask.shape)
    whitened = whiten(values, mask, eps=0)
    assert_same(whiten(values * unit + shift, mask, eps=0), whitened, atol=1e-6)
    if mask.sum() > 1:
        assert_same(whitened[mask].mean(), torch.zeros(()).double())
        assert_same(whitened[mask].std(), torch.ones(()).double())


@given(masks(), st.floats(-1e4, 1e4), st.sampled_from([0.0, 1e-8]))
def test_equal_values_whiten_to_exactly_zero(mask: Tensor, constant: float, eps: float) -> None:
    values = torch.where(mask, torch.full(mask.shape, constant), torch.nan)
    whitened, grad = gradients(lambda x: whiten(x, mask, eps=eps), values)
    assert whitened.count_nonzero() == 0
    assert grad.isfinite().all()
    kept = whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept, torch.where(mask, values, 0))


@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3)])
def test_nothing_whitens_to_nothing(shape: tuple[int, int]) -> None:
    whitened, grad = gradients(lambda x: whiten(x, torch.zeros(shape).bool()), torch.full(shape, torch.nan))
    assert whitened.shape == shape
    assert whitened.count_nonzero() == grad.count_nonzero() == 0
