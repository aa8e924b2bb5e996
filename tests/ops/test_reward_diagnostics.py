"""How much of the reward is noise, what it tells apart, and how often it tells nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    clamp_fraction,
    contrastive_anchors,
    contrastive_loss,
    contrastive_reward,
    degenerate_fraction,
    grpo_advantages,
    informative_groups,
    noise_share,
    process_gap,
    reward_by_verdict,
)

from . import oracles
from .helpers import HALF, assert_rounded, assert_same
from .strategies import SEEDS, Batch, anchored_batches, graded_groups, noise

LEVELS = [0.0, -0.1, -0.5, -0.3, math.nan]


class Judged(tuple[Tensor, Tensor, Tensor, Tensor]):
    """Rewards, success, process and group ids."""


@st.composite
def judged(draw: st.DrawFn) -> Judged:
    _, ids = draw(graded_groups())
    count = len(ids)
    rewards = torch.tensor(draw(st.lists(st.sampled_from(LEVELS), min_size=count, max_size=count))).double()
    success, process = (torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))) for _ in "ab")
    return Judged((rewards, success | process, process, ids))


# --- noise_share


@given(anchored_batches(), st.sampled_from([0.05, 0.5]))
def test_the_share_of_noise_agrees_with_the_oracle(batch: Batch, temperature: float) -> None:
    expected = oracles.noise_share(*batch, temperature=temperature)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        share = noise_share(batch.embeddings, batch.success, groups, temperature=temperature)
        assert_same(share, oracles.tensor(expected))
        assert math.isnan(expected) or 0 <= share <= 1


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(anchored_batches())
def test_the_share_of_noise_in_half_precision_is_rounded_once(dtype: torch.dtype, batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.to(dtype))
    exact = oracles.tensor(oracles.noise_share(*batch, temperature=0.5))
    assert_rounded(torch.nan_to_num(noise_share(*batch, temperature=0.5)), exact.nan_to_num(), dtype, slack=1e-4)


@given(anchored_batches(), SEEDS)
def test_neither_rotation_nor_order_changes_the_share_of_noise(batch: Batch, seed: int) -> None:
    dim = batch.embeddings.shape[1]
    rotation: Tensor = torch.linalg.qr(noise(seed, dim, dim))[0]
    order = noise(seed, len(batch.ids)).argsort()
    moved = Batch(batch.embeddings @ rotation, batch.success, batch.ids)
    assert_same(noise_share(*(x[order] for x in moved)), noise_share(*batch), atol=1e-8)


def test_the_share_of_noise_is_that_of_many_draws() -> None:
    torch.manual_seed(0)
    embeddings, success = noise(0, 8, 4), torch.arange(8) < 5
    layout = GroupLayout.from_size(8, 8, device="cpu")
    losses = [contrastive_loss(embeddings, success, layout, reduction="none")[:5] for _ in range(4000)]
    drawn = torch.stack(losses)
    share = drawn.var(0, correction=0).mean() / drawn.var(correction=0)
    torch.testing.assert_close(noise_share(embeddings, success, layout), share, rtol=0.02, atol=0)


def test_with_one_positive_nothing_is_drawn() -> None:
    share = noise_share(noise(0, 3, 2), torch.tensor([True, True, False]), torch.zeros(3).long())
    assert share == 0


@pytest.mark.parametrize("success", [[True, True, True], [True, False, False], [False, False, False]])
def test_without_an_anchor_there_is_no_noise_to_share(success: list[bool]) -> None:
    assert noise_share(noise(0, 3, 2), torch.tensor(success), torch.zeros(3).long()).isnan()


# --- process_gap


@given(judged())
def test_the_gap_agrees_with_the_oracle(batch: Judged) -> None:
    rewards, success, process, ids = batch
    expected = oracles.tensor(oracles.process_gap(*batch))
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(torch.stack(process_gap(rewards, success, process, groups)), expected)


@given(judged(), st.floats(-5, 5), st.floats(0.1, 10))
def test_a_shift_changes_no_gap_a_scale_scales_it_and_neither_changes_the_auc(
    batch: Judged, shift: float, scale: float
) -> None:
    rewards, *rest = batch
    before, after = process_gap(rewards, *rest), process_gap(rewards * scale + shift, *rest)
    assert_same(after.mean_gap, before.mean_gap * scale, atol=1e-8)
    assert_same(process_gap(rewards * 2, *rest).auc, before.auc)


@given(judged())
def test_the_other_judge_sees_the_opposite(batch: Judged) -> None:
    rewards, success, process, ids = batch
    gap, other = process_gap(*batch), process_gap(rewards, success, ~process, ids)
    assert_same((other.mean_gap, other.auc), (-gap.mean_gap, 1 - gap.auc))


def test_incorrect_rollouts_and_other_groups_take_no_part() -> None:
    success, process = torch.tensor([True, False, True]), torch.tensor([True, False, False])
    rewards = torch.tensor([1.0, -9.0, 0.0])
    assert torch.stack(process_gap(rewards, success, process, torch.tensor([0, 0, 1]))).isnan().all()
    assert process_gap(rewards, success, process, torch.tensor([0, 0, 0])).mean_gap == 1


# --- reward_by_verdict


@given(judged())
def test_means_by_verdict_agree_with_the_oracle(batch: Judged) -> None:
    rewards, success, *_ = batch
    means = reward_by_verdict(rewards, success)
    assert_same(torch.stack(means), oracles.tensor(oracles.reward_by_verdict(rewards, success)))
    assert_same(tuple(reversed(reward_by_verdict(rewards, ~success))), tuple(means))
    shifted = reward_by_verdict(2 * rewards + 1, success)
    assert_same(torch.stack(shifted), 2 * torch.stack(means) + 1)


@given(anchored_batches())
def test_incorrect_rollouts_have_a_contrastive_reward_of_zero(batch: Batch) -> None:
    rewards = contrastive_reward(contrastive_loss(*batch, reduction="none"))
    means = reward_by_verdict(rewards, batch.success)
    assert means.incorrect == 0
    assert -0.5 <= means.correct <= 0


# --- degenerate_fraction


@given(graded_groups(), st.floats(0, 1))
def test_the_degenerate_share_agrees_with_the_oracle(batch: tuple[Tensor, Tensor], unknown: float) -> None:
    rewards, ids = batch
    rewards = torch.where(torch.arange(len(ids)) < unknown * len(ids), torch.nan, rewards)
    expected = oracles.tensor(oracles.degenerate_fraction(rewards, ids))
    assert_same(degenerate_fraction(rewards, ids), expected)
    assert_same(degenerate_fraction(rewards, GroupLayout.from_ids(ids)), expected)


@given(graded_groups())
def test_a_batch_is_degenerate_where_advantages_are_zero(batch: tuple[Tensor, Tensor]) -> None:
    advantages = grpo_advantages(*batch, scale="none")
    assert (degenerate_fraction(*batch) == 1) == (advantages.count_nonzero() == 0)
    assert (degenerate_fraction(*batch) == 1) == (not informative_groups(*batch).any())


# --- clamp_fraction


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("floor", [-0.5, -0.3, 0.0])
@given(batch=anchored_batches())
def test_the_share_at_the_floor_is_found_in_every_dtype(dtype: torch.dtype, floor: float, batch: Batch) -> None:
    anchors = contrastive_anchors(batch.success, batch.ids)
    loss = contrastive_loss(*batch, reduction="none")
    rewards = contrastive_reward(loss.to(dtype), floor=floor)
    lowest = rewards == contrastive_reward(torch.full_like(loss, 1e4).to(dtype), floor=floor)
    assert_rounded(clamp_fraction(rewards, anchors, floor=floor), lowest[anchors].double().mean(), dtype)


def test_the_share_at_the_floor_agrees_with_the_oracle() -> None:
    rewards, anchors = torch.tensor([-0.5, -0.2, 0.0, -0.5]).double(), torch.tensor([True, True, True, False])
    for some in (anchors, torch.zeros(4).bool()):
        assert_same(clamp_fraction(rewards, some), oracles.tensor(oracles.clamp_fraction(rewards, some)))


def test_perfect_clusters_of_fourteen_are_all_at_the_floor() -> None:
    for correct, share in ((13, 0.0), (14, 1.0)):
        success = torch.arange(16) < correct
        embeddings = torch.where(success.unsqueeze(1), torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0]))
        groups = torch.zeros(16).long()
        rewards = contrastive_reward(contrastive_loss(embeddings, success, groups, reduction="none"))
        assert clamp_fraction(rewards, contrastive_anchors(success, groups)) == share
