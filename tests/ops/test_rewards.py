"""The contrastive reward: bounded, detached, for correct rollouts only. Length and repetition; rewards at a token."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    contrastive_anchors,
    contrastive_loss,
    contrastive_reward,
    cosine_length_reward,
    grpo_advantages,
    overlong_penalty,
    pass_rate_length_penalty,
    repetition_penalty,
    supcon_out,
    token_level_rewards,
)

from . import oracles
from .helpers import HALF, assert_rounded, assert_same
from .strategies import SEEDS, TEMPERATURES, Batch, batches, group_ids, masks, noise

losses = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=8).map(oracles.tensor)
weights = st.floats(0, 10)
floors = st.floats(-3, 0)


@given(losses, weights, floors)
def test_agrees_with_the_oracle(loss: Tensor, weight: float, floor: float) -> None:
    rewards = contrastive_reward(loss, weight=weight, floor=floor)
    assert_same(rewards, oracles.contrastive_reward(loss, weight=weight, floor=floor))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(st.floats(0, 20))
def test_half_precision_is_rounded_once(dtype: torch.dtype, value: float) -> None:
    loss = torch.tensor([value], dtype=dtype)
    assert_rounded(contrastive_reward(loss), oracles.contrastive_reward(loss), dtype)


@given(losses, weights, floors)
def test_lies_between_the_floor_and_zero(loss: Tensor, weight: float, floor: float) -> None:
    rewards = contrastive_reward(loss, weight=weight, floor=floor)
    assert ((rewards >= floor) & (rewards <= 0)).all()


def test_the_clip_comes_after_the_weight() -> None:
    assert contrastive_reward(torch.tensor([3.0]), weight=0.1, floor=-0.5).item() == pytest.approx(-0.3)


def test_an_infinite_loss_gets_the_floor() -> None:
    assert contrastive_reward(torch.tensor([math.inf])).item() == -0.5


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_no_loss_gives_a_positive_zero(weight: float) -> None:
    reward = contrastive_reward(torch.zeros(1), weight=weight)
    assert reward.item() == 0
    assert not reward.signbit().any()


def test_the_reward_is_detached() -> None:
    assert not contrastive_reward(torch.ones(2, requires_grad=True)).requires_grad


def rewards_of(batch: Batch, temperature: float = 0.05) -> Tensor:
    return contrastive_reward(contrastive_loss(*batch, temperature=temperature, reduction="none"))


@given(batches(), TEMPERATURES)
def test_an_incorrect_rollout_and_whoever_else_is_no_anchor_gets_nothing(batch: Batch, temperature: float) -> None:
    anchors = contrastive_anchors(batch.success, batch.ids)
    assert (rewards_of(batch, temperature)[~anchors] == 0).all()


@given(batches(), TEMPERATURES)
def test_every_correct_rollout_stays_above_every_incorrect_one(batch: Batch, temperature: float) -> None:
    assume(batch.success.unique().numel() == 2)
    total = batch.success.double() + rewards_of(batch, temperature)
    assert total[batch.success].min() > total[~batch.success].max()


@given(batches())
def test_an_all_correct_group_has_advantage_exactly_zero(batch: Batch) -> None:
    all_correct = batch._replace(success=torch.ones_like(batch.success))
    advantages = grpo_advantages(all_correct.success.double() + rewards_of(all_correct), batch.ids)
    assert advantages.count_nonzero() == 0


@pytest.mark.parametrize(
    ("correct", "best"), [(2, 0.0), (4, -0.2197), (8, -0.3892), (12, -0.4796), (14, -0.5), (15, -0.5)]
)
def test_the_best_possible_reward_of_sixteen_rollouts(correct: int, best: float) -> None:
    success = torch.arange(16) < correct
    embeddings = torch.where(success.unsqueeze(1), torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0]))
    loss = contrastive_loss(embeddings, success, torch.zeros(16).long(), objective=supcon_out, reduction="none")
    assert contrastive_reward(loss)[:correct].tolist() == pytest.approx([best] * correct, abs=1e-4)


def test_identical_embeddings_give_everyone_the_floor() -> None:
    success = torch.arange(16) < 8
    rewards = rewards_of(Batch(torch.ones(16, 4), success, torch.zeros(16).long()))
    assert torch.equal(rewards, torch.where(success, -0.5, 0.0))


@given(st.integers(1, 7))
def test_the_reward_falls_as_correct_rollouts_move_apart(seed: int) -> None:
    incorrect, correct = noise(seed, 1, 8), noise(seed + 10, 1, 8)
    away = noise(seed + 20, 1, 8)
    success = torch.tensor([True, True, False])
    rewards = [
        rewards_of(
            Batch(torch.cat([correct, correct + distance * away, incorrect]), success, torch.zeros(3).long()), 1.0
        )[0]
        for distance in (0.0, 0.5, 1.0)
    ]
    assert rewards[0] > rewards[1] > rewards[2]


lengths = st.lists(st.integers(0, 10_000), min_size=1, max_size=8).map(torch.tensor)


@given(lengths, st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0.0, 0.5, 1.0, 3]))
def test_the_overlong_penalty_agrees_with_the_oracle(lengths: Tensor, limit: int, buffer: int, factor: float) -> None:
    assume(buffer <= limit)
    penalty = overlong_penalty(lengths, max_length=limit, buffer=buffer, factor=factor)
    expected = oracles.overlong_penalty(lengths, max_length=limit, buffer=buffer, factor=factor)
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-6, atol=0)
    assert ((penalty >= -factor) & (penalty <= 0)).all()
    assert not penalty[expected == 0].signbit().any()
    assert (penalty[lengths >= limit] == -factor).all()


def test_the_overlong_penalty_of_dapo() -> None:
    lengths = torch.tensor([16384, 16385, 18432, 20480, 20481], dtype=torch.int32)
    penalty = overlong_penalty(lengths, max_length=20480, buffer=4096)
    assert penalty.tolist() == [0, -1 / 4096, -0.5, -1, -1]


values = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0])


@st.composite
def judged_lengths(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths, verdicts and group ids."""
    ids = draw(group_ids())
    drawn = [
        draw(st.lists(each, min_size=len(ids), max_size=len(ids))) for each in (st.integers(0, 300), st.booleans())
    ]
    return torch.tensor(drawn[0]), torch.tensor(drawn[1]), ids


@given(judged_lengths(), st.integers(1, 300), st.tuples(values, values, values, values), st.none() | values)
def test_the_cosine_length_reward_agrees_with_the_oracle(
    batch: tuple[Tensor, Tensor, Tensor], limit: int, ends: tuple[float, ...], exceeded: float | None
) -> None:
    lengths, success, _ = batch
    names = ("correct_short", "correct_long", "incorrect_short", "incorrect_long")
    options = dict(zip(names, ends, strict=True)) | {"max_length": limit, "exceeded": exceeded}
    rewards = cosine_length_reward(lengths, success, **options)
    torch.testing.assert_close(
        rewards.double(), oracles.cosine_length_reward(lengths, success, **options), rtol=1e-5, atol=1e-5
    )


@given(judged_lengths(), st.integers(1, 300))
def test_by_default_shorter_is_better_if_correct_and_worse_if_not(
    batch: tuple[Tensor, Tensor, Tensor], limit: int
) -> None:
    lengths, success, _ = batch
    order = lengths.argsort(stable=True)
    rewards, success = cosine_length_reward(lengths, success, max_length=limit)[order], success[order]
    assert (rewards[success].diff() <= 0).all()
    assert (rewards[~success].diff() >= 0).all()
    assert ((rewards[success] >= 0.5) & (rewards[success] <= 1)).all()
    assert ((rewards[~success] >= -1) & (rewards[~success] <= -0.5)).all()


def test_the_cosine_length_reward_of_trl() -> None:
    """The example of its documentation; the cosine does not rise again beyond the limit, as TRL's does."""
    rewards = cosine_length_reward(
        torch.tensor([50, 50, 100, 150]), torch.tensor([True, False, True, True]), max_length=100
    )
    torch.testing.assert_close(rewards, torch.tensor([0.75, -0.75, 0.5, 0.5]))


@given(judged_lengths(), st.sampled_from([0.0, 0.25, 2.0]))
def test_the_pass_rate_length_penalty_agrees_with_the_oracle(
    batch: tuple[Tensor, Tensor, Tensor], factor: float
) -> None:
    lengths, success, ids = batch
    expected = oracles.pass_rate_length_penalty(lengths, success, ids, factor=factor)
    for groups in (ids, GroupLayout.from_ids(ids)):
        penalty = pass_rate_length_penalty(lengths, success, groups, factor=factor)
        torch.testing.assert_close(penalty.double(), expected, rtol=1e-5, atol=1e-6)
        assert ((penalty >= -factor) & (penalty <= 0)).all()
    for group in oracles.members(ids):
        if not success[group].any():
            assert penalty[group].count_nonzero() == 0


@given(masks(max_tokens=9), SEEDS, st.integers(1, 4), st.integers(1, 3))
def test_the_repetition_penalty_agrees_with_the_oracle(mask: Tensor, seed: int, size: int, vocab: int) -> None:
    token_ids = noise(seed, *mask.shape).mul(vocab).long()
    penalty = repetition_penalty(token_ids, mask, ngram_size=size, factor=2)
    expected = oracles.repetition_penalty(token_ids, mask, ngram_size=size, factor=2)
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-6, atol=1e-6)
    assert ((penalty > -2) & (penalty <= 0)).all()
    renamed = torch.where(mask, token_ids * 2**50 + 7, seed)  # other ids, and anything under the mask
    assert torch.equal(repetition_penalty(renamed, mask, ngram_size=size, factor=2), penalty)


@given(masks(), SEEDS, st.integers(0, 3), st.integers(0, 3))
def test_padding_changes_no_repetition_penalty(mask: Tensor, seed: int, left: int, right: int) -> None:
    token_ids = (noise(seed, *mask.shape) > 0).long()
    padded, around = (torch.nn.functional.pad(x, (left, right)) for x in (token_ids, mask))
    assert torch.equal(repetition_penalty(padded, around), repetition_penalty(token_ids, mask))


def test_the_repetition_penalty_of_trl() -> None:
    """The example of its documentation, and a loop, which costs nearly everything."""
    token_ids, mask = torch.tensor([[1, 2, 3, 4, 0], [5, 5, 5, 5, 5]]), torch.arange(5) < torch.tensor([[4], [5]])
    assert repetition_penalty(token_ids, mask, ngram_size=2).tolist() == [0, -0.75]
    loop = (torch.arange(3000) % 7).unsqueeze(0)
    assert repetition_penalty(loop, loop >= 0).item() == pytest.approx(-1 + 7 / 2998)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
def test_nothing_repeats_without_a_token(shape: tuple[int, int]) -> None:
    assert repetition_penalty(torch.zeros(shape).long(), torch.zeros(shape).bool()).tolist() == [0.0] * shape[0]


@given(masks(), SEEDS)
def test_token_level_rewards_agree_with_the_oracle(mask: Tensor, seed: int) -> None:
    rewards = noise(seed, len(mask))
    actual = token_level_rewards(rewards, mask)
    assert_same(actual, oracles.token_level_rewards(rewards, mask))
    assert torch.equal(actual.sum(1), torch.where(mask.any(1), rewards, 0))
    assert torch.autograd.gradcheck(lambda x: token_level_rewards(x, mask), (rewards.requires_grad_(),))


@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
def test_token_level_rewards_without_a_token(shape: tuple[int, int]) -> None:
    assert token_level_rewards(torch.ones(shape[0]), torch.zeros(shape).bool()).shape == shape
