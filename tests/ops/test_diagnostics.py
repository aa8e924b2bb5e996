"""Similarities of embeddings: means over pairs, within groups or length buckets, and nothing flows back."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, group_similarity, length_bucket_similarity

from . import oracles
from .helpers import HALF, assert_rounded, assert_same
from .strategies import SEEDS, Batch, anchored_batches, batches, noise


@given(batches())
def test_agrees_with_the_oracle(batch: Batch) -> None:
    expected = oracles.group_similarity(*batch)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(torch.stack(group_similarity(batch.embeddings, batch.success, groups)), oracles.tensor(expected))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(anchored_batches())
def test_half_precision_is_rounded_once(dtype: torch.dtype, batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.to(dtype))
    actual, exact = torch.stack(group_similarity(*batch)), oracles.tensor(oracles.group_similarity(*batch))
    assert_rounded(actual.nan_to_num(), exact.nan_to_num(), dtype)


@given(batches())
def test_the_other_verdict_swaps_correct_and_incorrect(batch: Batch) -> None:
    similarity, other = group_similarity(*batch), group_similarity(batch.embeddings, ~batch.success, batch.ids)
    assert_same((other.incorrect, other.negative, other.positive), tuple(similarity))


@given(st.integers(1, 4), st.integers(2, 5), SEEDS)
def test_ids_layout_and_ordered_layout_agree(groups: int, size: int, seed: int) -> None:
    ids = torch.arange(groups * size) // size
    forms = [ids, GroupLayout.from_ids(-ids), GroupLayout.from_size(len(ids), size, device="cpu")]
    success = noise(seed, len(ids)) > 0
    results = [torch.stack(group_similarity(noise(seed, len(ids), 3), success, form)) for form in forms]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@given(batches(), SEEDS)
def test_rotation_and_order_do_not_matter(batch: Batch, seed: int) -> None:
    dim = batch.embeddings.shape[1]
    rotation: Tensor = torch.linalg.qr(noise(seed, dim, dim))[0]
    order = noise(seed, len(batch.ids)).argsort()
    moved = Batch(batch.embeddings @ rotation, batch.success, batch.ids)
    shuffled = group_similarity(*(x[order] for x in moved))
    assert_same(torch.stack(shuffled), torch.stack(group_similarity(*batch)), atol=1e-9)


def test_perfect_clusters_are_one_and_minus_one() -> None:
    success = torch.tensor([True, True, False])
    similarity = group_similarity(torch.tensor([[2.0], [3.0], [-1.0]]), success, torch.zeros(3).long())
    torch.testing.assert_close(torch.stack(similarity), torch.tensor([1.0, -1.0, torch.nan]), equal_nan=True)


@pytest.mark.parametrize(
    ("success", "missing"), [([True, True], "negative"), ([True, False], "positive"), ([False, False], "positive")]
)
def test_without_a_pair_the_mean_is_nan(success: list[bool], missing: str) -> None:
    similarity = group_similarity(torch.ones(2, 3), torch.tensor(success), torch.zeros(2).long())
    assert math.isnan(getattr(similarity, missing))


def test_pairs_of_different_groups_do_not_count() -> None:
    similarity = group_similarity(torch.ones(2, 3), torch.tensor([True, False]), torch.tensor([0, 1]))
    assert torch.stack(similarity).isnan().all()


def test_nothing_has_a_gradient() -> None:
    similarity = group_similarity(torch.ones(3, 2, requires_grad=True), torch.ones(3).bool(), torch.zeros(3).long())
    assert not any(value.requires_grad for value in similarity)
    assert not length_bucket_similarity(torch.ones(3, 2, requires_grad=True), torch.arange(3)).requires_grad


# --- length buckets


@given(batches(), SEEDS, st.integers(1, 5))
def test_length_buckets_agree_with_the_oracle(batch: Batch, seed: int, buckets: int) -> None:
    lengths = noise(seed, len(batch.ids)).mul(3).abs().long()
    actual = length_bucket_similarity(batch.embeddings, lengths, buckets=buckets)
    assert_same(actual, oracles.length_bucket_similarity(batch.embeddings, lengths, buckets=buckets), atol=1e-9)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(seed=SEEDS)
def test_length_buckets_in_half_precision_are_rounded_once(dtype: torch.dtype, seed: int) -> None:
    embeddings, lengths = noise(seed, 12, 4).to(dtype), torch.arange(12)
    exact = oracles.length_bucket_similarity(embeddings, lengths)
    assert_rounded(length_bucket_similarity(embeddings, lengths), exact, dtype)


@given(st.integers(2, 12), st.integers(1, 5), SEEDS)
def test_neither_order_nor_norm_nor_the_unit_of_length_changes_a_bucket(count: int, buckets: int, seed: int) -> None:
    embeddings, lengths, order = noise(seed, count, 3), torch.arange(count), noise(seed, count).argsort()
    moved = length_bucket_similarity(7 * embeddings[order], 5 * lengths[order] + 3, buckets=buckets)
    assert_same(moved, length_bucket_similarity(embeddings, lengths, buckets=buckets), atol=1e-9)


def test_embeddings_that_carry_length_are_closer_within_buckets_than_in_the_batch() -> None:
    lengths = torch.arange(64)
    angle = lengths / 64 * torch.pi
    embeddings = torch.stack([angle.cos(), angle.sin()], 1)
    whole = length_bucket_similarity(embeddings, lengths, buckets=1)
    assert (length_bucket_similarity(embeddings, lengths) > whole + 0.4).all()
    assert length_bucket_similarity(embeddings, lengths, buckets=40).isnan().any()
