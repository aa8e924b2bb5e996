"""Several rewards as one; and correct rollouts above incorrect ones."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    combine_rewards,
    contrastive_loss,
    contrastive_reward,
    gdpo_advantages,
    grpo_advantages,
    guarded_rewards,
    informative_groups,
    negative_credit,
    reward_inversions,
    supcon_out,
)

from . import oracles
from .helpers import HALF, assert_rounded, assert_same
from .strategies import SEEDS, Batch, anchored_batches, graded_groups, group_ids, noise

Signals = tuple[Tensor, Tensor]
Judged = tuple[Tensor, Tensor, Tensor]
METHODS = ["sum", "gdpo"]
every_method = pytest.mark.parametrize("method", METHODS)
WEIGHTS = st.sampled_from([None, (1.0, 0.5), (0.2, 3.0), (0.0, 1.0), (1, -1)])


@st.composite
def signals(draw: st.DrawFn, missing: bool = True) -> Signals:
    """An outcome in {0, 1} and another signal of any scale; some constant in a group, some not given."""
    ids = draw(group_ids())
    outcome = torch.tensor(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(ids), max_size=len(ids))))
    other = noise(draw(SEEDS), len(ids)).mul(4).round() * draw(st.sampled_from([0.01, 1.0, 100.0]))
    if draw(st.booleans()):
        other[ids == ids[0]] = 0.25
    both = torch.stack([outcome.double(), other], 1)
    if missing:
        absent = noise(draw(SEEDS), len(ids), 2) < draw(st.sampled_from([-9.0, -0.8]))
        both[absent] = torch.nan
    return both, ids


@every_method
@given(signals(), WEIGHTS)
def test_agrees_with_the_oracle(method: str, batch: Signals, weights: tuple[float, float] | None) -> None:
    rewards, ids = batch
    expected = oracles.combine_rewards(rewards, ids, method=method, weights=weights)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(combine_rewards(rewards, groups, method=method, weights=weights), expected)


@given(signals(), WEIGHTS)
def test_advantages_agree_with_the_oracle(batch: Signals, weights: tuple[float, float] | None) -> None:
    rewards, ids = batch
    expected = oracles.gdpo_advantages(rewards, ids, weights=weights)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(gdpo_advantages(rewards, groups, weights=weights), expected, atol=1e-8)


@given(signals(), st.sampled_from(HALF))
def test_half_precision_is_rounded_once(batch: Signals, dtype: torch.dtype) -> None:
    rewards, ids = batch[0].to(dtype), batch[1]
    for method in METHODS:
        actual = combine_rewards(rewards, ids, method=method)
        exact = oracles.combine_rewards(rewards, ids, method=method)
        assert_rounded(actual.nan_to_num(), exact.nan_to_num(), dtype, slack=1e-4)
    assume(exact.nan_to_num().abs().max() > 1e-3)  # signals may cancel
    assert_rounded(gdpo_advantages(rewards, ids), oracles.gdpo_advantages(rewards, ids), dtype, slack=1e-4)


@given(signals())
def test_only_a_rollout_without_any_signal_is_unscorable(batch: Signals) -> None:
    rewards, ids = batch
    absent = rewards.isnan().all(1)
    for method in METHODS:
        assert torch.equal(combine_rewards(rewards, ids, method=method).isnan(), absent)
    assert gdpo_advantages(rewards, ids)[absent].count_nonzero() == 0


@given(signals(missing=False), st.sampled_from([1e-2, 10.0, 1e4]))
def test_gdpo_does_not_depend_on_the_unit_of_a_signal(batch: Signals, unit: float) -> None:
    rewards, ids = batch
    scaled = rewards * torch.tensor([1.0, unit])
    scores = combine_rewards(rewards, ids, method="gdpo", eps=0)
    assert_same(combine_rewards(scaled, ids, method="gdpo", eps=0), scores)
    assume(scores.abs().max() > 1e-3)  # signals may cancel
    assert_same(gdpo_advantages(scaled, ids, eps=0), gdpo_advantages(rewards, ids, eps=0))


@given(signals(missing=False))
def test_a_signal_that_is_constant_in_every_group_changes_nothing(batch: Signals) -> None:
    rewards, ids = batch
    rewards[:, 1] = (ids % 7).double()
    assert_same(gdpo_advantages(rewards, ids), gdpo_advantages(rewards[:, :1], ids))


@given(signals())
def test_a_group_in_which_nothing_differs_has_advantage_exactly_zero(batch: Signals) -> None:
    rewards, ids = batch
    rewards[ids == ids[0]] = torch.tensor([1.0, 0.1], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        assert gdpo_advantages(rewards.to(dtype), ids)[ids == ids[0]].count_nonzero() == 0


@given(signals(missing=False))
def test_gdpo_is_of_unit_deviation_and_adds_up_to_zero(batch: Signals) -> None:
    rewards, ids = batch
    advantages = gdpo_advantages(rewards, ids, eps=0)
    assert advantages.sum().abs() < 1e-9
    assume(advantages.any())
    assert_same(advantages.std(), torch.ones(()).double())


@given(graded_groups())
def test_one_signal_is_grpo_over_the_batch_deviation(graded: Signals) -> None:
    rewards, ids = graded
    scores = grpo_advantages(rewards, ids, eps=0)
    assert_same(combine_rewards(rewards.unsqueeze(1), ids, method="gdpo", eps=0), scores)
    deviation = scores.std() if scores.any() else torch.ones(())
    assert_same(gdpo_advantages(rewards.unsqueeze(1), ids, eps=0), scores / deviation)


def test_gdpo_tells_apart_what_a_sum_does_not() -> None:
    """The paper's figure 2: of two binary rewards and two rollouts, (0, 1) and (0, 2) differ."""
    ids = torch.tensor([0, 0, 1, 1])
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    summed = grpo_advantages(combine_rewards(rewards, ids), ids, eps=0)
    assert_same(summed[1], summed[3], rtol=1e-6)
    apart = gdpo_advantages(rewards, ids)
    assert_same(apart[3], 2 * apart[1], rtol=1e-6)


@every_method
@given(st.integers(1, 2), st.integers(2, 4), SEEDS)
def test_passes_gradcheck(method: str, groups: int, size: int, seed: int) -> None:
    ids = torch.arange(groups * size) % groups
    rewards = noise(seed, len(ids), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: combine_rewards(x, ids, method=method, weights=(1, 0.3)), (rewards,))
    assert torch.autograd.gradcheck(lambda x: gdpo_advantages(x, ids), (rewards,))


@given(graded_groups(), SEEDS)
def test_informative_groups_agree_with_the_oracle(graded: Signals, seed: int) -> None:
    rewards, ids = graded
    rewards[noise(seed, len(ids)) < -1] = torch.nan
    expected = oracles.informative_groups(rewards, ids)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert torch.equal(informative_groups(rewards, groups), expected)


@given(group_ids(), SEEDS)
def test_verdicts_are_informative_if_some_but_not_all_are_correct(ids: Tensor, seed: int) -> None:
    success = noise(seed, len(ids)) > 0
    kept = informative_groups(success, ids)
    for group in oracles.members(ids):
        assert (kept[group] == (0 < success[group].sum() < len(group))).all()
    assert torch.equal(kept, grpo_advantages(success.double(), ids) != 0)


@st.composite
def judged(draw: st.DrawFn, missing: bool = True) -> Judged:
    rewards, ids = draw(graded_groups())
    if missing:
        rewards[noise(draw(SEEDS), len(ids)) < -1] = torch.nan
    return rewards, noise(draw(SEEDS), len(ids)) > 0, ids


@given(judged(), st.sampled_from([0.0, 0.1, 5]))
def test_guarding_and_its_measure_agree_with_the_oracles(batch: Judged, margin: float) -> None:
    rewards, success, ids = batch
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(
            guarded_rewards(rewards, success, groups, margin=margin),
            oracles.guarded_rewards(rewards, success, ids, margin=margin),
        )
        assert torch.equal(
            reward_inversions(rewards, success, groups), oracles.reward_inversions(rewards, success, ids)
        )


@given(judged(), st.sampled_from([torch.inf, -torch.inf]))
def test_an_infinite_reward_is_an_unknown_one(batch: Judged, infinite: float) -> None:
    rewards, success, ids = batch
    spoilt = rewards.masked_fill(rewards.isnan(), infinite)
    for scale in ("group", "batch", "none"):
        expected = grpo_advantages(rewards, ids, scale=scale)
        assert_same(grpo_advantages(spoilt, ids, scale=scale), expected)
    for method in METHODS:
        columns, infinities = torch.stack([rewards, rewards], 1), torch.stack([spoilt, rewards], 1)
        assert_same(combine_rewards(infinities, ids, method=method), combine_rewards(columns, ids, method=method))
    assert torch.equal(informative_groups(spoilt, ids), informative_groups(rewards, ids))
    assert torch.equal(reward_inversions(spoilt, success, ids), reward_inversions(rewards, success, ids))
    guarded = guarded_rewards(spoilt, success, ids)
    assert_same(guarded.masked_fill(guarded.isinf(), torch.nan), guarded_rewards(rewards, success, ids))


@given(judged(), st.sampled_from(HALF))
def test_guarding_rounds_once_and_inverts_nothing_in_half_precision(batch: Judged, dtype: torch.dtype) -> None:
    rewards, success, ids = batch[0].to(dtype), batch[1], batch[2]
    guarded = guarded_rewards(rewards, success, ids)
    exact = oracles.guarded_rewards(rewards, success, ids)
    assert_rounded(guarded.nan_to_num(), exact.nan_to_num(), dtype)
    assert not reward_inversions(guarded, success, ids).any()


@given(judged())
def test_guarding_raises_exactly_what_is_inverted(batch: Judged) -> None:
    rewards, success, ids = batch
    guarded = guarded_rewards(rewards, success, ids)
    assert torch.equal(guarded.nan_to_num() > rewards.nan_to_num(), reward_inversions(rewards, success, ids))
    assert not reward_inversions(guarded, success, ids).any()
    assert_same(guarded_rewards(guarded, success, ids), guarded)


@given(judged(missing=False))
def test_a_guarded_gradient_goes_to_who_gave_the_reward(batch: Judged) -> None:
    rewards, success, ids = batch
    rewards = rewards + torch.linspace(0, 1e-3, len(rewards), dtype=torch.float64)  # no ties
    assert torch.autograd.gradcheck(lambda x: guarded_rewards(x, success, ids), (rewards.requires_grad_(),), eps=1e-9)


MIXED = st.integers(2, 12).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n)))


@given(MIXED, SEEDS, st.booleans())
def test_bonuses_of_at_most_one_over_n_less_one_rule_out_negative_credit(
    sizes: tuple[int, int], seed: int, penalised: bool
) -> None:
    """With an incorrect rollout in the group, whatever penalties incorrect ones get."""
    correct, size = sizes
    success, ids = torch.arange(size) < correct, torch.zeros(size).long()
    bonus = (noise(seed, size) * 3).clamp(-1, 0) / (size - 1)
    advantages = grpo_advantages(success + torch.where(success | penalised, bonus, 0), ids)
    assert not negative_credit(advantages.where(advantages.abs() > 1e-9, 0), success).any()


def test_a_lower_floor_does_not() -> None:
    success, ids = torch.arange(8) < 7, torch.zeros(8).long()
    rewards = success.float() - torch.tensor([0.2, 0, 0, 0, 0, 0, 0, 0])
    assert negative_credit(grpo_advantages(rewards, ids), success).tolist() == [True] + [False] * 7
    assert not reward_inversions(rewards, success, ids).any()


@pytest.mark.parametrize("penalty", [0.2, 1e-3])
def test_no_floor_does_in_an_all_correct_group(penalty: float) -> None:
    success, ids = torch.ones(3).bool(), torch.zeros(3).long()
    advantages = grpo_advantages(torch.tensor([1.0, 1.0, 1.0 - penalty]), ids)
    assert negative_credit(advantages, success).tolist() == [False, False, True]


def test_penalties_add_up_against_the_bound() -> None:
    success, ids = torch.arange(4) < 3, torch.zeros(4).long()
    for total, negative in ((-0.33, False), (-0.34, True)):
        rewards = success.double() + torch.tensor([total, 0, 0, 0]).double()
        advantages = grpo_advantages(rewards, ids)
        assert negative_credit(advantages.where(advantages.abs() > 1e-9, 0), success)[0] == negative


# --- outcome and contrastive reward


def outcome_and_contrastive(batch: Batch, *, missing: bool) -> Tensor:
    loss = contrastive_loss(*batch, objective=supcon_out, reduction="none")
    reward = contrastive_reward(loss)
    other = torch.where(batch.success, reward, torch.nan) if missing else reward
    return torch.stack([batch.success.to(reward.dtype), other], 1)


@given(anchored_batches())
def test_gdpo_with_contrastive_rewards_of_correct_rollouts_alone_keeps_the_outcome(batch: Batch) -> None:
    both = outcome_and_contrastive(batch, missing=True)
    combined = combine_rewards(both, batch.ids, method="gdpo")
    outcome = combine_rewards(both[:, :1], batch.ids, method="gdpo")
    for group in oracles.members(batch.ids):
        success, own = batch.success[group], combined[group]
        assert own[success].sum() > 0 > own[~success].sum()
        assert_same(own[success].mean(), outcome[group][success].mean(), rtol=1e-6, atol=1e-6)
        assert_same(own[~success], outcome[group][~success])


def test_gdpo_with_the_contrastive_rewards_of_all_erases_the_outcome() -> None:
    """Why the docstring says to pass NaN."""
    success, ids = torch.arange(8) < 4, torch.zeros(8).long()
    batch = Batch(torch.where(success.unsqueeze(1), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])), success, ids)
    erased = combine_rewards(outcome_and_contrastive(batch, missing=False), ids, method="gdpo")
    assert erased.abs().max() < 1e-5
    kept = combine_rewards(outcome_and_contrastive(batch, missing=True), ids, method="gdpo")
    torch.testing.assert_close(kept, torch.where(success, 0.9354, -0.9354), rtol=1e-4, atol=0)
