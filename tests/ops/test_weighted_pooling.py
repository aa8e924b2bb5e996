"""Pools by weight, by position and by segment, and vectors less their group's mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, center_by_group, mean_pool, segment_mean_pool, token_pool, weighted_pool

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, Batch, anchored_batches, batches, masks, noise


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Of any scale, 0 under a mask."""
    mask = draw(masks())
    scale = draw(st.sampled_from([1e-30, 1.0, 1e30]))
    return torch.where(mask, noise(draw(SEEDS), *mask.shape).abs() * scale, 0)


@st.composite
def segments(draw: st.DrawFn) -> Tensor:
    """Ids in any order, some of them outside 0, 1, 2."""
    return torch.tensor(draw(st.lists(st.integers(-2, 4), min_size=1, max_size=12)))


# --- weights


@given(weights(), SEEDS)
def test_weighted_agrees_with_the_oracle(weight: Tensor, seed: int) -> None:
    hidden = noise(seed, *weight.shape, 3)
    assert_same(weighted_pool(hidden, weight), oracles.weighted_pool(hidden, weight))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(masks(), SEEDS)
def test_weighted_in_half_precision_is_rounded_once(dtype: torch.dtype, mask: Tensor, seed: int) -> None:
    hidden, weight = (
        noise(seed, *mask.shape, 3).to(dtype),
        torch.where(mask, noise(seed, *mask.shape).abs(), 0).to(dtype),
    )
    assert_rounded(weighted_pool(hidden, weight), oracles.weighted_pool(hidden, weight), dtype)


@given(masks(max_tokens=4), SEEDS)
def test_weighted_passes_gradcheck(mask: Tensor, seed: int) -> None:
    shares = noise(seed, *mask.shape).abs() + 0.1
    inputs = noise(seed, *mask.shape, 2).requires_grad_(), shares.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: weighted_pool(x, torch.where(mask, w, 0)), inputs)


@given(masks(), SEEDS, st.sampled_from([1e-3, 1.0, 7.0]))
def test_equal_weights_of_any_size_give_the_mean(mask: Tensor, seed: int, size: float) -> None:
    hidden = noise(seed, *mask.shape, 3)
    assert_same(weighted_pool(hidden, mask * size), mean_pool(hidden, mask))


@given(weights(), SEEDS, st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_has_no_weight_changes_neither_value_nor_gradient(weight: Tensor, seed: int, rubbish: float) -> None:
    clean = noise(seed, *weight.shape, 3)
    dirty = torch.where(weight.unsqueeze(2) > 0, clean, rubbish)
    assert_equal(gradients(weighted_pool, dirty, weight), gradients(weighted_pool, clean, weight))


def test_no_weight_at_all_is_zero_without_gradient() -> None:
    results = gradients(weighted_pool, noise(0, 1, 2, 3), torch.zeros(1, 2).double())
    assert all(result.count_nonzero() == 0 for result in results)


def test_the_weighted_mean_of_4096_bfloat16_states_is_exact_to_bfloat16() -> None:
    hidden, weight = (noise(0, 2, 4096, 8) + 1).bfloat16(), noise(1, 2, 4096).abs().bfloat16()
    exact = (hidden.double() * weight.double().unsqueeze(2)).sum(1) / weight.double().sum(1, keepdim=True)
    assert_rounded(weighted_pool(hidden, weight), exact, torch.bfloat16)


# --- positions


@given(st.lists(st.integers(-2, 3), min_size=1, max_size=5), SEEDS)
def test_a_token_agrees_with_the_oracle(places: list[int], seed: int) -> None:
    hidden, positions = noise(seed, len(places), 4, 3), torch.tensor(places)
    assert_equal(token_pool(hidden, positions), oracles.token_pool(hidden, positions))


def test_a_token_gets_all_of_the_gradient_and_none_where_there_is_no_token() -> None:
    _, grad = gradients(lambda x: token_pool(x, torch.tensor([1, -1])), noise(0, 2, 3, 1))
    assert grad.flatten().tolist() == [0, 1, 0, 0, 0, 0]


def test_responses_padded_to_no_length_at_all_are_zero() -> None:
    assert token_pool(torch.zeros(2, 0, 3), torch.tensor([-1, -1])).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert weighted_pool(torch.zeros(2, 0, 3), torch.zeros(2, 0)).tolist() == [[0, 0, 0], [0, 0, 0]]


# --- segments


@given(segments(), SEEDS)
def test_segments_agree_with_the_oracle(ids: Tensor, seed: int) -> None:
    hidden = noise(seed, len(ids), 3)
    assert_same(segment_mean_pool(hidden, ids, num_segments=3), oracles.segment_mean_pool(hidden, ids, num_segments=3))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(segments(), SEEDS)
def test_segments_in_half_precision_are_rounded_once(dtype: torch.dtype, ids: Tensor, seed: int) -> None:
    hidden = noise(seed, len(ids), 3).to(dtype)
    exact = oracles.segment_mean_pool(hidden, ids, num_segments=3)
    assert_rounded(segment_mean_pool(hidden, ids, num_segments=3), exact, dtype)


@given(segments(), SEEDS)
def test_tokens_of_no_segment_change_neither_value_nor_gradient(ids: Tensor, seed: int) -> None:
    clean = noise(seed, len(ids), 3)
    dirty = torch.where(((ids >= 0) & (ids < 3)).unsqueeze(1), clean, torch.nan)
    results = [gradients(lambda x: segment_mean_pool(x, ids, num_segments=3), x) for x in (dirty, clean)]
    assert_equal(*results)


def test_segments_pass_gradcheck() -> None:
    ids = torch.tensor([0, 2, -1, 2, 0, 5])
    function = lambda x: segment_mean_pool(x, ids, num_segments=4)  # noqa: E731
    assert torch.autograd.gradcheck(function, noise(0, 6, 2).requires_grad_())


def test_the_mean_of_a_segment_of_4096_bfloat16_states_is_exact_to_bfloat16() -> None:
    hidden = (noise(0, 4096, 8) + 1).bfloat16()
    pooled = segment_mean_pool(hidden, torch.zeros(4096).int(), num_segments=1)
    assert_rounded(pooled[0], hidden.double().mean(0), torch.bfloat16)


# --- groups


@given(batches())
def test_centring_agrees_with_the_oracle(batch: Batch) -> None:
    expected = oracles.center_by_group(batch.embeddings, batch.ids)
    scale = batch.embeddings.abs().max().item()
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(center_by_group(batch.embeddings, groups), expected, atol=1e-12 * (1 + scale))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(anchored_batches())
def test_centring_in_half_precision_is_rounded_once(dtype: torch.dtype, batch: Batch) -> None:
    embeddings = batch.embeddings.to(dtype)
    assert_rounded(center_by_group(embeddings, batch.ids), oracles.center_by_group(embeddings, batch.ids), dtype)


@given(anchored_batches(), SEEDS)
def test_a_shift_of_a_group_changes_nothing_and_twice_is_once(batch: Batch, seed: int) -> None:
    _, number = batch.ids.unique(return_inverse=True)
    shift = noise(seed, int(number.max()) + 1, batch.embeddings.shape[1])[number]
    centered = center_by_group(batch.embeddings, batch.ids)
    assert_same(center_by_group(batch.embeddings + shift, batch.ids), centered)
    assert_same(center_by_group(centered, batch.ids), centered)


@given(anchored_batches())
def test_centring_passes_gradcheck(batch: Batch) -> None:
    layout = GroupLayout.from_ids(batch.ids)
    assert torch.autograd.gradcheck(lambda x: center_by_group(x, layout), batch.embeddings.requires_grad_())


@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=str)
@given(seed=SEEDS)
def test_a_constant_group_and_a_singleton_are_exactly_zero(dtype: torch.dtype, seed: int) -> None:
    vectors = noise(seed, 2, 5).to(dtype)[torch.tensor([0, 0, 0, 1])]
    assert center_by_group(vectors, torch.tensor([4, 4, 4, 2])).count_nonzero() == 0
