"""Pooling: exact sums, and nothing but the response tokens counts."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import last_token_pool, max_pool, mean_pool, segment_mean_pool

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, masks, noise

Pool = Callable[[Tensor, Tensor], Tensor]
every_pool = pytest.mark.parametrize("pool", [mean_pool, last_token_pool, max_pool], ids=lambda pool: pool.__name__)


def oracle(pool: Pool) -> Pool:
    return getattr(oracles, pool.__name__)


@every_pool
@given(mask=masks(), seed=SEEDS)
def test_agrees_with_the_oracle(pool: Pool, mask: Tensor, seed: int) -> None:
    hidden = noise(seed, *mask.shape, 3)
    assert_same(pool(hidden, mask), oracle(pool)(hidden, mask))


@every_pool
@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(mask=masks(), seed=SEEDS)
def test_half_precision_is_rounded_once(pool: Pool, dtype: torch.dtype, mask: Tensor, seed: int) -> None:
    hidden = noise(seed, *mask.shape, 3).to(dtype)
    assert_rounded(pool(hidden, mask), oracle(pool)(hidden, mask), dtype)


@every_pool
@given(mask=masks(max_tokens=4), seed=SEEDS)
def test_passes_gradcheck(pool: Pool, mask: Tensor, seed: int) -> None:
    assert torch.autograd.gradcheck(lambda x: pool(x, mask), (noise(seed, *mask.shape, 2).requires_grad_(),))


@every_pool
@given(mask=masks(), seed=SEEDS, rubbish=st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(
    pool: Pool, mask: Tensor, seed: int, rubbish: float
) -> None:
    clean = noise(seed, *mask.shape, 3)
    dirty = torch.where(mask.unsqueeze(2), clean, rubbish)
    assert_equal(gradients(lambda x: pool(x, mask), dirty), gradients(lambda x: pool(x, mask), clean))


@every_pool
@given(mask=masks(), seed=SEEDS, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_of_any_length_on_any_side_changes_nothing(
    pool: Pool, mask: Tensor, seed: int, left: int, right: int
) -> None:
    hidden = noise(seed, *mask.shape, 3)
    padded = torch.nn.functional.pad(hidden, (0, 0, left, right), value=7.0)
    assert_same(pool(padded, torch.nn.functional.pad(mask, (left, right))), pool(hidden, mask))


@every_pool
def test_an_empty_response_is_zero_without_gradient(pool: Pool) -> None:
    value, grad = gradients(lambda x: pool(x, torch.tensor([[False, False]])), noise(0, 1, 2, 3))
    assert value.count_nonzero() == 0
    assert grad.count_nonzero() == 0


@every_pool
def test_responses_padded_to_no_length_at_all_are_zero(pool: Pool) -> None:
    assert pool(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool)).tolist() == [[0, 0, 0], [0, 0, 0]]


@every_pool
def test_one_token_is_its_own_vector(pool: Pool) -> None:
    hidden = noise(0, 4, 3, 5)
    mask = torch.arange(3) == torch.tensor([[0], [1], [2], [1]])
    assert_same(pool(hidden, mask), hidden[mask])


def test_the_mean_of_4096_bfloat16_states_is_exact_to_bfloat16() -> None:
    hidden = (noise(0, 2, 4096, 8) + 1).bfloat16()
    pooled = mean_pool(hidden, torch.ones(2, 4096, dtype=torch.bool))
    assert_rounded(pooled, hidden.double().mean(1), torch.bfloat16)


@pytest.mark.parametrize(("mean", "deviation", "off"), [(1.0, 1.0, 0.19), (1.0, 0.1, 0.5), (0.0, 1.0, 0.04)])
def test_how_far_a_running_sum_in_bfloat16_is_off_depends_on_the_states(
    mean: float, deviation: float, off: float
) -> None:
    """The numbers that `mean_pool` and the page on differences state."""
    states = (noise(0, 1024, 1024) * deviation + mean).bfloat16()
    total = torch.zeros(1024, dtype=torch.bfloat16)
    for state in states:
        total = total + state
    exact = states.double().sum(0)
    assert ((total.double() - exact).norm() / exact.norm()).item() == pytest.approx(off, abs=0.01)


def test_length_does_not_leak_into_the_mean() -> None:
    state = noise(0, 8).bfloat16()
    mask = torch.arange(4096) < torch.tensor([[1], [500], [2000], [4096]])
    pooled = mean_pool(state.expand(4, 4096, 8), mask)
    assert torch.equal(pooled, state.expand(4, 8))


def test_units_that_share_a_maximum_share_its_gradient() -> None:
    _, grad = gradients(lambda x: max_pool(x, torch.tensor([[True, True, False]])), torch.ones(1, 3, 1).double())
    assert grad.flatten().tolist() == [0.5, 0.5, 0]


@given(mask=masks(), seed=SEEDS)
def test_a_packed_sequence_gives_what_the_padded_one_gives(mask: Tensor, seed: int) -> None:
    hidden = noise(seed, *mask.shape, 3)
    ids = torch.where(mask, torch.arange(len(mask)).unsqueeze(1), -1).flatten()
    order = noise(seed + 1, len(ids)).argsort()

    def packed(x: Tensor) -> Tensor:
        return segment_mean_pool(x.flatten(0, 1)[order], ids[order], num_segments=len(mask))

    assert_same(gradients(packed, hidden), gradients(lambda x: mean_pool(x, mask), hidden))
