"""What is logged of an update: means over tokens that count, in the direction that the docstring says."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import approximate_kl, clip_fraction, clipped_surrogate, effective_sample_size, kl_estimate, log_ratio

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same
from .strategies import SEEDS, Tokens, masks, noise, tokens

MEASURES = [approximate_kl, effective_sample_size]
every_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)


def oracle(measure: Any, *inputs: Tensor) -> Tensor:
    return oracles.tensor(getattr(oracles, measure.__name__)(*inputs))


@every_measure
@given(tokens())
def test_agrees_with_the_oracle(measure: Any, batch: Tokens) -> None:
    ratio = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
    assert_same(measure(ratio, batch.mask), oracle(measure, ratio, batch.mask))


@every_measure
@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(masks(), SEEDS)
def test_half_precision_is_rounded_once(measure: Any, dtype: torch.dtype, mask: Tensor, seed: int) -> None:
    ratio = noise(seed, *mask.shape).to(dtype)
    actual, exact = measure(ratio, mask), oracle(measure, ratio, mask)
    assert_rounded(actual.nan_to_num(), exact.nan_to_num(), dtype, slack=5e-6)


@every_measure
@given(masks(), SEEDS, st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_under_the_mask_changes_nothing(measure: Any, mask: Tensor, seed: int, rubbish: float) -> None:
    ratio = noise(seed, *mask.shape)
    assert_equal(measure(torch.where(mask, ratio, rubbish), mask), measure(ratio, mask))


@every_measure
@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (2, 3)])
def test_without_a_token_there_is_nothing_to_measure(measure: Any, shape: tuple[int, int]) -> None:
    mask = torch.zeros(shape).bool()
    assert measure(torch.zeros(shape), mask).isnan()
    assert clip_fraction(mask, mask).isnan()


@every_measure
@pytest.mark.parametrize("difference", [-200.0, 200.0])
def test_log_ratios_of_200_nats_are_finite(measure: Any, difference: float) -> None:
    assert measure(torch.tensor([[difference, 0.0]]), torch.ones(1, 2).bool()).isfinite()


@given(tokens())
def test_clip_fraction_agrees_with_the_oracle(batch: Tokens) -> None:
    ratio = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
    clipped = clipped_surrogate(ratio, batch.advantages).clipped
    assert_same(clip_fraction(clipped, batch.mask).double(), oracle(clip_fraction, clipped, batch.mask), rtol=1e-6)


@given(SEEDS)
def test_the_divergence_is_the_one_from_the_old_policy_to_the_new(seed: int) -> None:
    """Every word once, as often as the old policy samples it."""
    counts = torch.tensor([1, 2, 5])
    old = (counts / counts.sum()).double().log()
    new = noise(seed, 3).log_softmax(0)
    sampled = torch.repeat_interleave(new - old, counts).unsqueeze(0)
    exact = (old.exp() * (old - new)).sum()
    assert_same(approximate_kl(sampled, torch.ones(1, 8).bool()), exact, rtol=1e-6, atol=1e-7)


@given(tokens())
def test_the_divergence_is_the_mean_of_k3(batch: Tokens) -> None:
    ratio = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
    k3 = kl_estimate(batch.old_logprobs, batch.logprobs)
    assert_same(approximate_kl(ratio, batch.mask), k3[batch.mask].mean())
    assert not approximate_kl(ratio, batch.mask) < 0


@given(masks(), SEEDS, st.sampled_from([-500.0, 0.3, 500.0]))
def test_a_shift_of_all_weights_changes_no_sample_size(mask: Tensor, seed: int, shift: float) -> None:
    ratio = noise(seed, *mask.shape)
    assert_same(effective_sample_size(ratio + shift, mask), effective_sample_size(ratio, mask))


def test_the_sample_size_of_equal_weights_is_all_and_of_one_that_outweighs_the_rest_is_one() -> None:
    mask = torch.ones(2, 4).bool()
    assert effective_sample_size(torch.full((2, 4), 3.0), mask).item() == pytest.approx(1)
    assert effective_sample_size(torch.eye(2, 4) * torch.tensor([[90.0], [0.0]]), mask).item() == pytest.approx(1 / 8)


def test_nothing_has_a_gradient() -> None:
    ratio, mask = torch.ones(1, 2, requires_grad=True), torch.ones(1, 2).bool()
    assert not any(measure(ratio, mask).requires_grad for measure in MEASURES)
