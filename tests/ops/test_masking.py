"""Reductions: one number, however a batch is padded or split, and whatever is under the mask."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import aggregate, aggregate_denominator

from . import oracles
from .helpers import HALF, assert_rounded, assert_same, gradients
from .strategies import SEEDS, masks, noise

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
every_mode = pytest.mark.parametrize("mode", MODES)


def denominator(mask: Tensor, mode: str) -> Tensor:
    return aggregate_denominator(mask, mode=mode, max_length=9)


def reduce(values: Tensor, mask: Tensor, mode: str, total: Tensor | None = None) -> Tensor:
    if mode == "seq-mean-token-sum-norm" and total is None:
        total = denominator(mask, mode)
    return aggregate(values, mask, mode=mode, denominator=total)


@every_mode
@given(masks(), SEEDS)
def test_agrees_with_the_oracle(mode: str, mask: Tensor, seed: int) -> None:
    values = noise(seed, *mask.shape)
    total = oracles.aggregate_denominator(mask, mode=mode, max_length=9).item()
    assert_same(reduce(values, mask, mode), oracles.aggregate(values, mask, mode=mode, denominator=total))
    assert_same(
        aggregate(values, mask, mode=mode, denominator=7), oracles.aggregate(values, mask, mode=mode, denominator=7)
    )


@every_mode
@given(masks())
def test_denominators_agree_with_the_oracle(mode: str, mask: Tensor) -> None:
    assume(mask.any())
    expected = oracles.aggregate_denominator(mask, mode=mode, max_length=9)
    assert_same(denominator(mask, mode), expected.float())


@every_mode
@given(st.sampled_from(HALF), masks(), SEEDS)
def test_half_precision_is_rounded_once(mode: str, dtype: torch.dtype, mask: Tensor, seed: int) -> None:
    values = noise(seed, *mask.shape).to(dtype)
    assert_rounded(
        aggregate(values, mask, mode=mode, denominator=3),
        oracles.aggregate(values, mask, mode=mode, denominator=3),
        dtype,
    )


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
    assert_same(gradients(lambda x: reduce(x, mask, mode), dirty), expected, rtol=0, atol=0)


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
    values, whole = noise(seed, *mask.shape), denominator(mask, mode)

    def in_parts(x: Tensor) -> Tensor:
        parts = []
        for rows, own in zip(x.tensor_split(sorted(cuts)), mask.tensor_split(sorted(cuts)), strict=True):
            last = (
                int(own.any(0).nonzero().max()) + 1 if own.any() else 0
            )  # every part is padded to a length of its own
            parts.append(reduce(rows[:, :last], own[:, :last], mode, whole))
        return torch.stack(parts).sum()

    assert_same(gradients(in_parts, values), gradients(lambda x: reduce(x, mask, mode, whole), values))


@every_mode
@given(masks(), st.integers(1, 4))
def test_denominators_add_up_over_ranks(mode: str, mask: Tensor, cut: int) -> None:
    """Also where a rank has no valid token at all."""
    whole = torch.cat([mask, torch.ones_like(mask[:1])])
    parts = sum(denominator(part, mode) for part in whole.tensor_split([cut]))
    assert_same(parts, denominator(whole, mode))


@every_mode
@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3)])
def test_without_a_valid_token_the_result_is_a_differentiable_zero(mode: str, shape: tuple[int, int]) -> None:
    values = torch.full(shape, torch.nan)
    value, grad = gradients(lambda x: reduce(x, torch.zeros(shape, dtype=torch.bool), mode), values)
    assert value.item() == 0
    assert grad.count_nonzero() == 0


@pytest.mark.parametrize("mode", MODES[:3])
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
    by_number = aggregate(values, mask, mode=mode, denominator=1000)
    assert_same(aggregate(values, mask, mode=mode, denominator=torch.tensor(1000.0)), by_number)
