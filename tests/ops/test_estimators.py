"""The group-relative estimators beside GRPO: what they share, and what each is exactly."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    best_minus_second_advantages,
    corpo_advantages,
    gpg_advantages,
    grpo_advantages,
    informative_groups,
    maxrl_advantages,
    negative_credit,
    opo_advantages,
    pass_at_k_advantages,
    remax_advantages,
    rloo_advantages,
)

from . import oracles
from .helpers import ALL_FLOATS, HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, graded_groups, group_ids, noise

Graded = tuple[Tensor, Tensor]
Estimator = Callable[..., Tensor]


def lengths_of(rewards: Tensor) -> Tensor:
    """Some lengths that go with the rewards, 0 among them: whoever permutes these permutes those."""
    return (rewards.detach().double().nan_to_num() * 7).long().abs() % 5


# Of rewards and groups; the oracles have the same form.
ESTIMATORS: dict[str, tuple[Estimator, Estimator]] = {
    "rloo": (rloo_advantages, oracles.rloo_advantages),
    "opo": (
        lambda r, g: opo_advantages(r, lengths_of(r), g),
        lambda r, g: oracles.opo_advantages(r, lengths_of(r), g),
    ),
    "maxrl": (lambda r, g: maxrl_advantages(r.abs(), g), lambda r, g: oracles.maxrl_advantages(r.abs(), g)),
    "gpg": (lambda r, g: gpg_advantages(r, g, divisor=2), lambda r, g: oracles.gpg_advantages(r, g, divisor=2)),
    "best_minus_second": (best_minus_second_advantages, oracles.best_minus_second_advantages),
}
every_estimator = pytest.mark.parametrize(("estimate", "oracle"), ESTIMATORS.values(), ids=ESTIMATORS)


@every_estimator
@given(graded_groups())
def test_agrees_with_the_oracle(estimate: Estimator, oracle: Estimator, graded: Graded) -> None:
    rewards, ids = graded
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert_same(estimate(rewards, groups), oracle(rewards, ids))


@every_estimator
@given(graded_groups(), st.sampled_from(HALF))
def test_half_precision_is_rounded_once(
    estimate: Estimator, oracle: Estimator, graded: Graded, dtype: torch.dtype
) -> None:
    rewards, ids = (graded[0] / 16).to(dtype), graded[1]
    assert_rounded(estimate(rewards, ids), oracle(rewards, ids), dtype, slack=1e-4)


@every_estimator
@given(graded_groups(), SEEDS, st.sampled_from([torch.inf, -torch.inf]))
def test_an_infinite_reward_is_an_unknown_one(
    estimate: Estimator, oracle: Estimator, graded: Graded, seed: int, infinite: float
) -> None:
    rewards, ids = graded
    unknown = noise(seed, len(ids)) < -0.5
    for groups in (ids, GroupLayout.from_ids(ids)):
        actual = estimate(rewards.masked_fill(unknown, infinite), groups)
        assert_equal(actual, estimate(rewards.masked_fill(unknown, torch.nan), groups))


@every_estimator
@given(graded_groups(), SEEDS)
def test_an_unscorable_rollout_is_out_of_the_baseline(
    estimate: Estimator, oracle: Estimator, graded: Graded, seed: int
) -> None:
    rewards, ids = graded
    unknown = noise(seed, len(ids)) < -0.5
    rewards[unknown] = torch.nan
    for groups in (ids, GroupLayout.from_ids(ids)):
        advantages = estimate(rewards, groups)
        assert_same(advantages, oracle(rewards, ids))
        assert advantages[unknown].count_nonzero() == 0


@every_estimator
@given(group_ids(), st.floats(0, 1e4), st.sampled_from(ALL_FLOATS))
def test_a_constant_group_has_advantage_exactly_zero(
    estimate: Estimator, oracle: Estimator, ids: Tensor, constant: float, dtype: torch.dtype
) -> None:
    rewards = torch.where(ids == ids[0], constant, torch.arange(len(ids))).to(dtype)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert estimate(rewards, groups)[ids == ids[0]].count_nonzero() == 0


@every_estimator
@given(graded_groups(), SEEDS)
def test_the_order_of_rollouts_does_not_matter(
    estimate: Estimator, oracle: Estimator, graded: Graded, seed: int
) -> None:
    rewards, ids = graded
    order = noise(seed, len(ids)).argsort()
    assert_same(estimate(rewards[order], ids[order]), estimate(rewards, ids)[order])


@pytest.mark.parametrize("name", ["rloo", "opo", "maxrl", "best_minus_second"])
@given(graded_groups())
def test_groups_are_independent(name: str, graded: Graded) -> None:
    estimate, (rewards, ids) = ESTIMATORS[name][0], graded
    together = estimate(rewards, ids)
    for group in oracles.members(ids):
        assert_same(together[group], estimate(rewards[group], ids[group]))


@every_estimator
@given(st.integers(1, 3), st.integers(2, 4), SEEDS)
def test_passes_gradcheck(estimate: Estimator, oracle: Estimator, groups: int, size: int, seed: int) -> None:
    ids = torch.arange(groups * size) % groups
    rewards = noise(seed, len(ids)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimate(x, ids), (rewards,))


@every_estimator
def test_gradients_are_finite_without_a_baseline(estimate: Estimator, oracle: Estimator) -> None:
    rewards, ids = torch.tensor([torch.nan, 1.0, 0.0, torch.nan, 0.0, 0.0]), torch.tensor([0, 0, 0, 1, 2, 2])
    for groups in (ids, GroupLayout.from_ids(ids)):
        _, grad = gradients(lambda x, groups=groups: estimate(x, groups), rewards)
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["rloo", "gpg", "best_minus_second"])
@given(graded_groups(), st.floats(-1e3, 1e3))
def test_a_shift_changes_nothing(name: str, graded: Graded, shift: float) -> None:
    estimate, (rewards, ids) = ESTIMATORS[name][0], graded
    rewards = (rewards * 16).round()
    shift = round(shift)
    assert_same(estimate(rewards + shift, ids), estimate(rewards, ids))


@given(graded_groups())
def test_rloo_is_dr_grpo_times_the_group_size_over_one_less(graded: Graded) -> None:
    rewards, ids = graded
    sizes = torch.tensor([(ids == own).sum().item() for own in ids], dtype=torch.float64)
    factor = sizes / (sizes - 1).clamp(min=1)
    assert_same(rloo_advantages(rewards, ids), grpo_advantages(rewards, ids, scale="none") * factor)


@given(graded_groups(), st.integers(1, 4096))
def test_opo_with_equal_lengths_is_dr_grpo(graded: Graded, length: int) -> None:
    rewards, ids = graded
    lengths = torch.full_like(ids, length)
    assert_same(opo_advantages(rewards, lengths, ids), grpo_advantages(rewards, ids, scale="none"))


@given(graded_groups(), SEEDS)
def test_opo_adds_up_to_zero_over_tokens(graded: Graded, seed: int) -> None:
    rewards, ids = graded
    lengths = (noise(seed, len(ids)).abs() * 100).long()
    weighted = opo_advantages(rewards, lengths, ids) * lengths
    for group in oracles.members(ids):
        assert weighted[group].sum().abs() <= 1e-7


def test_opo_ignores_the_length_of_an_unscorable_rollout() -> None:
    rewards, ids = torch.tensor([1.0, 0.0, torch.nan]), torch.zeros(3).long()
    assert opo_advantages(rewards, torch.tensor([3, 1, 4096]), ids).tolist() == [0.25, -0.75, 0]


@given(st.integers(2, 64).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_maxrl_averages_the_score_over_correct_rollouts(sizes: tuple[int, int]) -> None:
    """Theorem 1 of the paper, less a control variate: n/k at each correct rollout, minus 1 at every one."""
    correct, size = sizes
    advantages = maxrl_advantages((torch.arange(size) < correct).double(), torch.zeros(size).long(), eps=0)
    assert advantages.tolist() == pytest.approx([size / correct - 1] * correct + [-1] * (size - correct))


def test_maxrl_gives_nothing_where_the_mean_is_not_above_zero() -> None:
    rewards = torch.tensor([0.0, -1.0, 0.0, 0.0, 1.0, -1.0])
    assert maxrl_advantages(rewards, torch.tensor([0, 0, 1, 1, 2, 2]), eps=0).count_nonzero() == 0


def expected_gradient(estimate: Callable[[Tensor], Tensor], size: int, logit: float) -> float:
    """The expected sum of advantages times score functions, over all outcomes of a group of Bernoulli rollouts."""
    p, total = 1 / (1 + math.exp(-logit)), 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=size):
        rewards = torch.tensor(outcome, dtype=torch.float64)
        chance = p ** sum(outcome) * (1 - p) ** (size - sum(outcome))
        total += chance * float((estimate(rewards) * (rewards - p)).sum())
    return total


@pytest.mark.parametrize("size", [2, 3, 4, 6])
@pytest.mark.parametrize("logit", [-1.2, 0.0, 2.0])
def test_maxrl_follows_the_log_likelihood_to_the_order_of_the_group_size_less_one(size: int, logit: float) -> None:
    gradient = expected_gradient(lambda r: maxrl_advantages(r, torch.zeros(size).long(), eps=0), size, logit) / size
    p = 1 / (1 + math.exp(-logit))
    assert gradient == pytest.approx(p * (1 - p) * sum((1 - p) ** k for k in range(size - 1)))
    if (size, logit) == (4, -1.2):
        assert gradient == pytest.approx(0.4197, abs=5e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("logit", [-1.2, 0.0, 2.0])
def test_best_minus_second_is_unbiased_for_pass_at_the_group_size(size: int, logit: float) -> None:
    gradient = expected_gradient(lambda r: best_minus_second_advantages(r, torch.zeros(size).long()), size, logit)
    p = 1 / (1 + math.exp(-logit))
    assert gradient == pytest.approx(size * (1 - p) ** (size - 1) * p * (1 - p))


@given(graded_groups())
def test_only_the_single_best_rollout_has_a_lead(graded: Graded) -> None:
    rewards, ids = graded
    advantages = best_minus_second_advantages(rewards, ids)
    assert (advantages >= 0).all()
    for group in oracles.members(ids):
        leaders = advantages[group].nonzero().flatten()
        assert len(leaders) <= 1
        assert all(rewards[group][i] == rewards[group].max() for i in leaders)


THRESHOLDS = st.floats(-4, 4, width=16)


@given(graded_groups(), SEEDS, THRESHOLDS)
def test_corpo_agrees_with_the_oracle(graded: Graded, seed: int, threshold: float) -> None:
    rewards, ids = graded
    rewards[noise(seed, len(ids)) < -0.5] = torch.nan
    for groups in (ids, GroupLayout.from_ids(ids)):
        advantages = corpo_advantages(rewards, groups, threshold=threshold)
        assert_same(advantages, oracles.corpo_advantages(rewards, ids, threshold=threshold))
        assert advantages[rewards.isnan()].count_nonzero() == 0


@given(graded_groups(), THRESHOLDS)
def test_corpo_never_favours_what_is_below_the_threshold(graded: Graded, threshold: float) -> None:
    rewards, ids = graded
    advantages = corpo_advantages(rewards, ids, threshold=threshold)
    assert (advantages[rewards < threshold] < 0).all()
    assert (advantages <= grpo_advantages(rewards, ids, scale="none") + 1e-9).all()


@given(graded_groups())
def test_corpo_is_dr_grpo_where_every_mean_has_passed_the_threshold(graded: Graded) -> None:
    rewards, ids = graded
    assert_same(corpo_advantages(rewards, ids, threshold=-1e4), grpo_advantages(rewards, ids, scale="none"))


@given(group_ids(), st.floats(-1e4, 1e4, width=32))
def test_corpo_of_a_constant_group_is_exactly_zero_at_the_threshold(ids: Tensor, constant: float) -> None:
    rewards = torch.full((len(ids),), constant)
    for groups in (ids, GroupLayout.from_ids(ids)):
        assert corpo_advantages(rewards, groups, threshold=constant).count_nonzero() == 0


@pytest.mark.parametrize("threshold", [-5.0, 0.1, 5.0])
def test_corpo_passes_gradcheck(threshold: float) -> None:
    rewards, ids = noise(0, 6).requires_grad_(), torch.tensor([0, 1, 0, 1, 1, 2])
    assert torch.autograd.gradcheck(lambda x: corpo_advantages(x, ids, threshold=threshold), (rewards,))


@given(graded_groups())
def test_gpg_makes_up_for_groups_without_a_gradient(graded: Graded) -> None:
    """Averaged over all rollouts, it is what Dr. GRPO is averaged over the informative ones."""
    rewards, ids = graded
    plain, kept = grpo_advantages(rewards, ids, scale="none"), informative_groups(rewards, ids)
    weights = torch.linspace(1, 2, len(ids), dtype=torch.float64)
    expected = (plain * weights)[kept].mean() if kept.any() else torch.zeros(()).double()
    assert_same((gpg_advantages(rewards, ids) * weights).mean(), expected)


def test_gpg_counts_correct_and_incorrect_groups_alike() -> None:
    ids = torch.tensor([0, 0, 1, 1])
    for constant in (0.0, 1.0):
        rewards = torch.tensor([1.0, 0.0, constant, constant])
        assert gpg_advantages(rewards, ids).tolist() == [1, -1, 0, 0]


successes = group_ids(max_size=12).flatmap(
    lambda ids: st.tuples(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)).map(torch.tensor), st.just(ids))
)


@given(successes, st.integers(1, 5))
def test_pass_at_k_is_the_average_over_all_choices(batch: Graded, k: int) -> None:
    success, ids = batch
    expected = oracles.pass_at_k_advantages(success, ids, k=k)
    for groups in (ids, GroupLayout.from_ids(ids)):
        advantages = pass_at_k_advantages(success, groups, k=k)
        torch.testing.assert_close(advantages.double(), expected, rtol=1e-5, atol=1e-6)
        assert advantages[expected == 0].count_nonzero() == 0


@given(successes)
def test_pass_at_1_is_grpo_with_the_deviation_of_the_population(batch: Graded) -> None:
    success, ids = batch
    sizes = torch.tensor([(ids == own).sum().item() for own in ids])
    expected = grpo_advantages(success.float(), ids, eps=0) * (sizes / (sizes - 1).clamp(min=1)).sqrt()
    torch.testing.assert_close(pass_at_k_advantages(success, ids, k=1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("correct", range(17))
def test_pass_at_k_in_closed_form(k: int, correct: int) -> None:
    """The paper's own form, with binomial coefficients."""
    success, incorrect = torch.arange(16) < correct, 16 - correct
    advantages = pass_at_k_advantages(success, torch.zeros(16).long(), k=k)
    mean = 1 - math.comb(incorrect, k) / math.comb(16, k)
    deviation = math.sqrt(mean * (1 - mean))
    if deviation == 0:
        assert advantages.count_nonzero() == 0
        return
    beside_an_incorrect_one = 1 - math.comb(incorrect - 1, k - 1) / math.comb(15, k - 1)
    expected = [(1 - mean) / deviation] * correct + [(beside_an_incorrect_one - mean) / deviation] * incorrect
    assert advantages.tolist() == pytest.approx(expected, rel=1e-5)


def test_pass_at_k_counts_easy_prompts_less_as_k_grows() -> None:
    success, ids = torch.arange(16) < 12, torch.zeros(16).long()
    sizes = [pass_at_k_advantages(success, ids, k=k).abs().max().item() for k in (1, 2, 3, 4, 5)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


def test_remax_agrees_with_the_oracle_and_leaves_out_what_is_not_known() -> None:
    rewards = torch.tensor([1.0, 0.25, torch.nan, 1.0], dtype=torch.float64)
    greedy = torch.tensor([0.5, 1.0, 1.0, torch.nan], dtype=torch.float64)
    assert_same(remax_advantages(rewards, greedy), oracles.remax_advantages(rewards, greedy))
    assert remax_advantages(rewards.float(), greedy.float()).tolist() == [0.5, -0.75, 0, 0]
    assert torch.autograd.gradcheck(remax_advantages, (noise(0, 3).requires_grad_(), noise(1, 3).requires_grad_()))


@given(successes)
def test_verdicts_alone_never_give_negative_credit(batch: Graded) -> None:
    success, ids = batch
    rewards = success.double()
    for advantages in (grpo_advantages(rewards, ids), rloo_advantages(rewards, ids), maxrl_advantages(rewards, ids)):
        assert not negative_credit(advantages, success).any()


def test_negative_credit_is_for_correct_rollouts_only() -> None:
    advantages, success = torch.tensor([-1.0, -1.0, 0.0, -0.0, 1.0]), torch.tensor([True, False, True, True, True])
    assert torch.equal(negative_credit(advantages, success), oracles.negative_credit(advantages, success))
    assert negative_credit(advantages, success).tolist() == [True, False, False, False, False]
