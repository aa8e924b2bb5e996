"""Token-level advantages: time over valid tokens only, of any length, and whitening."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    clipped_value_loss,
    gae_advantages,
    gigpo_advantages,
    grpo_advantages,
    length_adaptive_lambda,
    optimal_token_baseline_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
    token_level_rewards,
    whiten,
)

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, masks, noise

RATES = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])


def long_mask(length: int, kind: int) -> Tensor:
    """Three rollouts: whole, with holes, and empty."""
    mask = torch.ones(3, length, dtype=torch.bool)
    mask[1], mask[2] = noise(kind, length) > 0, False
    return mask


@given(masks(), SEEDS, RATES)
def test_returns_agree_with_the_oracle(mask: Tensor, seed: int, discount: float) -> None:
    rewards = noise(seed, *mask.shape)
    assert_same(
        reinforce_plus_plus_advantages(rewards, mask, discount=discount, eps=0.1),
        oracles.reinforce_plus_plus_advantages(rewards, mask, discount=discount, eps=0.1),
    )


@given(masks(), SEEDS, RATES, RATES)
def test_gae_agrees_with_the_oracle(mask: Tensor, seed: int, discount: float, gae_lambda: float) -> None:
    rewards, values = noise(seed, *mask.shape), noise(seed + 1, *mask.shape)
    actual = gae_advantages(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    expected = oracles.gae_advantages(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    assert_same(tuple(actual), expected)


@pytest.mark.parametrize("discount", [1.0, 0.99, 0.3])
@pytest.mark.parametrize("length", [127, 128, 129, 300, 16384, 16500])
def test_any_length_agrees_with_a_loop(length: int, discount: float) -> None:
    """Beyond one chunk, and beyond one chunk of chunks."""
    mask = long_mask(length, 0)
    rewards, values = noise(1, 3, length), noise(2, 3, length)
    actual = gae_advantages(rewards, values, mask, discount=discount, gae_lambda=1.0)
    expected = oracles.gae_advantages(rewards, values, mask, discount=discount, gae_lambda=1.0)
    assert_same(tuple(actual), expected)
    single = gae_advantages(rewards.float(), values.float(), mask, discount=discount, gae_lambda=1.0)
    torch.testing.assert_close(single.returns.double(), expected[1], rtol=1e-5, atol=1e-3)


def test_a_small_discount_over_a_long_response_neither_overflows_nor_vanishes() -> None:
    mask = torch.ones(1, 5000, dtype=torch.bool)
    returns = gae_advantages(torch.ones(1, 5000), torch.zeros(1, 5000), mask, discount=0.5, gae_lambda=1.0).returns
    assert returns[0, 0].item() == pytest.approx(2)
    assert returns[0, -1].item() == 1


@given(masks(), SEEDS)
def test_without_discount_every_token_gets_the_whole_reward(mask: Tensor, seed: int) -> None:
    rewards = noise(seed, len(mask))
    result = gae_advantages(token_level_rewards(rewards, mask), torch.zeros_like(mask, dtype=torch.float64), mask)
    whole = gae_advantages(
        token_level_rewards(rewards, mask), torch.zeros_like(mask, dtype=torch.float64), mask, gae_lambda=1
    )
    assert_same(whole.advantages, torch.where(mask, rewards.unsqueeze(1), 0))
    first = mask & (mask.cumsum(1) == 1)
    decayed = rewards * 0.95 ** (mask.sum(1) - 1).double()
    assert_same(result.advantages[first], decayed[mask.any(1)])


@given(masks(), SEEDS)
def test_gae_at_lambda_1_is_the_return_less_the_value_and_at_0_the_error(mask: Tensor, seed: int) -> None:
    rewards, values = noise(seed, *mask.shape), noise(seed + 1, *mask.shape)
    one = gae_advantages(rewards, values, mask, discount=0.9, gae_lambda=1)
    free = gae_advantages(rewards, torch.zeros_like(values), mask, discount=0.9, gae_lambda=1)
    assert_same(one.returns, free.returns)
    zero = gae_advantages(rewards, values, mask, discount=0.0, gae_lambda=0)
    assert_same(zero.returns, torch.where(mask, rewards, 0))


def test_perfect_values_leave_no_advantage() -> None:
    mask = torch.tensor([[True, False, True, True]])
    rewards, values = torch.tensor([[0.0, 9.0, 0.0, 1.0]]), torch.tensor([[1.0, -9.0, 1.0, 1.0]])
    result = gae_advantages(rewards, values, mask)
    assert result.advantages.count_nonzero() == 0
    assert result.returns.tolist() == [[1, 0, 1, 1]]


def test_gae_is_detached() -> None:
    leaf = torch.ones(1, 2, requires_grad=True)
    assert not any(x.requires_grad for x in gae_advantages(leaf, leaf, torch.ones(1, 2).bool()))


def everything(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    return (
        reinforce_plus_plus_advantages(rewards, mask, discount=0.9),
        reinforce_plus_plus_baseline_advantages(values[:, 0], mask, torch.zeros(len(mask)).long()),
        *gae_advantages(rewards, values, mask, discount=0.9),
        whiten(values, mask),
    )


@given(masks(), SEEDS, st.sampled_from([torch.nan, torch.inf]))
def test_what_is_under_the_mask_changes_nothing(mask: Tensor, seed: int, rubbish: float) -> None:
    rewards, values = noise(seed, *mask.shape), noise(seed + 1, *mask.shape)
    dirty = torch.where(mask, values, rubbish)
    dirty[:, 0] = values[:, 0]  # the rewards per rollout
    expected = everything(rewards, values, mask)
    assert_equal(everything(torch.where(mask, rewards, rubbish), dirty, mask), expected)
    assert all(result[~mask].count_nonzero() == 0 for result in expected)


@given(masks(), SEEDS)
def test_holes_and_padding_anywhere_change_nothing(mask: Tensor, seed: int) -> None:
    """Every place twice, the first time as a hole; then padding on both sides."""
    rewards, values = noise(seed, *mask.shape), noise(seed + 1, *mask.shape)
    place = torch.arange(2 * mask.shape[1] + 5).sub(2).div(2, rounding_mode="floor").clamp(0, mask.shape[1] - 1)
    counts = mask[:, place] & (torch.arange(len(place)) % 2 == 1)
    counts[:, :2], counts[:, -3:] = False, False
    own = counts | (~mask[:, place] & (torch.arange(len(place)) % 2 == 1))
    own[:, :2], own[:, -3:] = False, False
    for actual, expected in zip(
        (
            reinforce_plus_plus_advantages(rewards[:, place], counts, discount=0.9),
            *gae_advantages(rewards[:, place], values[:, place], counts, discount=0.9),
        ),
        (
            reinforce_plus_plus_advantages(rewards, mask, discount=0.9),
            *gae_advantages(rewards, values, mask, discount=0.9),
        ),
        strict=True,
    ):
        assert_same(actual[own].view(mask.shape), expected)


@given(masks(), SEEDS, st.sampled_from(HALF))
def test_half_precision_is_rounded_once(mask: Tensor, seed: int, dtype: torch.dtype) -> None:
    rewards, values = noise(seed, *mask.shape).to(dtype), noise(seed + 1, *mask.shape).to(dtype)
    exact = oracles.gae_advantages(rewards, values, mask)
    for actual, expected in zip(gae_advantages(rewards, values, mask), exact, strict=True):
        assert_rounded(actual, expected, dtype, slack=1e-5)
    returns = oracles.reinforce_plus_plus_advantages(rewards, mask, eps=0.1)
    assert_rounded(reinforce_plus_plus_advantages(rewards, mask, eps=0.1), returns, dtype, slack=1e-4)


@given(masks(), SEEDS, st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_the_baseline_agrees_with_the_oracle_also_for_unscorable_rollouts(
    mask: Tensor, seed: int, ids: list[int]
) -> None:
    groups, rewards = torch.tensor(ids[: len(mask)]), noise(seed, len(mask)).mul(2).round()
    rewards[noise(seed + 1, len(mask)) < -1] = torch.nan
    expected = oracles.reinforce_plus_plus_baseline_advantages(rewards, mask, groups, eps=0.1)
    for form in (groups, GroupLayout.from_ids(groups)):
        assert_same(reinforce_plus_plus_baseline_advantages(rewards, mask, form, eps=0.1), expected)


@given(masks(), SEEDS)
def test_an_unscorable_rollout_is_left_out(mask: Tensor, seed: int) -> None:
    rewards, values = noise(seed, len(mask) + 1), noise(seed + 1, *mask.shape)
    rewards[0] = torch.nan
    mask, values = torch.cat([torch.ones_like(mask[:1]), mask]), torch.cat([values[:1], values])
    per_token = token_level_rewards(rewards, mask)
    whitened = reinforce_plus_plus_advantages(per_token, mask)
    assert whitened[0].count_nonzero() == 0
    assert_same(whitened[1:], reinforce_plus_plus_advantages(per_token[1:], mask[1:]))
    advantages, returns = gae_advantages(per_token, values, mask)
    assert advantages[0].count_nonzero() == 0
    assert_same(returns[0], values[0])


@given(st.floats(-1e4, 1e4), masks())
def test_equal_rewards_are_exactly_zero(constant: float, mask: Tensor) -> None:
    rewards = torch.full((len(mask),), constant)
    assert reinforce_plus_plus_advantages(token_level_rewards(rewards, mask), mask).count_nonzero() == 0
    groups = torch.zeros(len(mask)).long()
    assert reinforce_plus_plus_baseline_advantages(rewards, mask, groups).count_nonzero() == 0


def test_a_singleton_does_not_let_its_reward_through() -> None:
    rewards, mask = torch.tensor([100.0, 1.0, 0.0]), torch.ones(3, 2).bool()
    assert reinforce_plus_plus_baseline_advantages(rewards, mask, torch.tensor([0, 1, 1]))[0].count_nonzero() == 0


@given(masks(), SEEDS, RATES)
def test_passes_gradcheck(mask: Tensor, seed: int, discount: float) -> None:
    rewards, groups = noise(seed, *mask.shape).requires_grad_(), torch.zeros(len(mask)).long()
    check = torch.autograd.gradcheck
    assert check(lambda x: reinforce_plus_plus_advantages(x, mask, discount=discount, eps=0.1), (rewards,))
    assert check(lambda x: reinforce_plus_plus_baseline_advantages(x[:, 0], mask, groups, eps=0.1), (rewards,))


@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3)])
def test_without_a_valid_token_everything_is_zero(shape: tuple[int, int]) -> None:
    mask, rubbish = torch.zeros(shape, dtype=torch.bool), torch.full(shape, torch.nan)
    result, grad = gradients(lambda x: reinforce_plus_plus_advantages(x, mask), rubbish)
    assert result.shape == shape
    assert result.count_nonzero() == grad.count_nonzero() == 0
    assert all(x.shape == shape and x.count_nonzero() == 0 for x in gae_advantages(rubbish, rubbish, mask))


@given(masks(), SEEDS)
def test_a_lambda_for_each_rollout_is_that_rollouts_lambda(mask: Tensor, seed: int) -> None:
    rewards, values = noise(seed, *mask.shape), noise(seed + 1, *mask.shape)
    rates = noise(seed + 2, len(mask)).sigmoid()
    together = gae_advantages(rewards, values, mask, discount=0.9, gae_lambda=rates)
    for i, rate in enumerate(rates.tolist()):
        row = slice(i, i + 1)
        alone = gae_advantages(rewards[row], values[row], mask[row], discount=0.9, gae_lambda=rate)
        assert_same(together.advantages[row], alone.advantages)
        assert_same(together.returns[row], alone.returns)


@given(masks(max_tokens=40), st.sampled_from([0.05, 0.3, 2.0]))
def test_the_horizon_of_the_adaptive_lambda_is_a_share_of_the_length(mask: Tensor, alpha: float) -> None:
    rates = length_adaptive_lambda(mask, alpha=alpha)
    torch.testing.assert_close(rates.double(), oracles.length_adaptive_lambda(mask, alpha=alpha), rtol=1e-5, atol=1e-6)
    assert ((rates >= 0) & (rates < 1)).all()
    horizon, lengths = 1 / (1 - rates.double()), mask.sum(1)
    long_enough = alpha * lengths >= 1
    torch.testing.assert_close(horizon[long_enough], alpha * lengths[long_enough].double(), rtol=1e-4, atol=1e-4)


@given(masks(), SEEDS, st.sampled_from([0.05, 0.2, 1.0, float("inf")]))
def test_the_value_loss_agrees_with_the_oracle_and_passes_gradcheck(mask: Tensor, seed: int, epsilon: float) -> None:
    values, old_values, returns = (noise(seed + n, *mask.shape) for n in range(3))
    loss = clipped_value_loss(values, old_values, returns, mask, epsilon=epsilon)
    assert_same(loss, oracles.clipped_value_loss(values, old_values, returns, mask, epsilon=epsilon))
    leaf = values.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: clipped_value_loss(x, old_values, returns, mask, epsilon=epsilon), (leaf,)
    )


@given(masks(), SEEDS)
def test_value_clipping_only_adds_to_the_squared_error(mask: Tensor, seed: int) -> None:
    values, old_values, returns = (noise(seed + n, *mask.shape) for n in range(3))
    plain = clipped_value_loss(values, old_values, returns, mask, epsilon=float("inf"))
    assert_same(plain, torch.where(mask, (values - returns) ** 2 / 2, 0).sum() / mask.sum().clamp(min=1))
    assert clipped_value_loss(values, old_values, returns, mask, epsilon=0.1) >= plain
    unmoved = clipped_value_loss(old_values, old_values, returns, mask, epsilon=0.1)
    assert_same(unmoved, clipped_value_loss(old_values, old_values, returns, mask, epsilon=float("inf")))


def test_the_value_loss_has_no_gradient_beyond_the_bound_where_the_value_went_the_right_way() -> None:
    values = torch.tensor([[0.5, -0.5]], requires_grad=True)
    old_values, returns = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    loss = clipped_value_loss(values, old_values, returns, torch.ones(1, 2).bool(), epsilon=0.2)
    grads = torch.autograd.grad(loss, [values, old_values, returns], allow_unused=True)
    assert grads[0].tolist() == [[0, -0.75]]
    assert grads[1:] == (None, None)


class Energetic(NamedTuple):
    token_rewards: Tensor
    old_logprobs: Tensor
    collision_probs: Tensor
    mask: Tensor
    groups: Tensor


@st.composite
def energetic(draw: st.DrawFn) -> Energetic:
    """Distributions over three vocabulary entries; few different rewards; some rollouts not known."""
    mask, seed = draw(masks()), draw(SEEDS)
    probs = noise(seed, *mask.shape, 3).mul(3).softmax(-1)
    rewards = noise(seed + 1, *mask.shape).round()
    rewards[noise(seed + 2, len(mask)) < -1.5] = torch.nan
    ids = draw(st.lists(st.integers(0, 2), min_size=len(mask), max_size=len(mask)))
    return Energetic(rewards, probs[..., 0].log(), probs.square().sum(-1), mask, torch.tensor(ids))


@given(energetic())
def test_the_optimal_token_baseline_agrees_with_the_oracle(batch: Energetic) -> None:
    expected = oracles.optimal_token_baseline_advantages(*batch)
    assert_same(optimal_token_baseline_advantages(*batch), expected)
    layout = GroupLayout.from_ids(batch.groups)
    assert_same(optimal_token_baseline_advantages(*batch[:-1], layout), expected)
    assert expected[~batch.mask].count_nonzero() == 0


@given(energetic())
def test_the_optimal_token_baseline_minimises_the_energy_of_the_gradient(batch: Energetic) -> None:
    """The sum of W A^2 at one token of all rollouts, with a baseline that they share."""
    whole = batch._replace(
        token_rewards=batch.token_rewards.nan_to_num(),
        mask=torch.ones_like(batch.mask),
        groups=torch.zeros_like(batch.groups),
    )
    advantages = optimal_token_baseline_advantages(*whole)
    energy = (1 - 2 * whole.old_logprobs.exp() + whole.collision_probs).cumsum(1)
    least = (energy * advantages.square()).sum(0)
    for shift in (-0.1, 0.1):
        assert ((energy * (advantages + shift).square()).sum(0) >= least - 1e-9).all()


@given(energetic(), st.floats(-1e3, 1e3, width=32))
def test_the_optimal_token_baseline_leaves_nothing_where_returns_are_equal(batch: Energetic, reward: float) -> None:
    """Rewards at the end: as far as the shortest rollout goes, and beyond it among those that still run."""
    rewards = token_level_rewards(torch.full((len(batch.mask),), reward), batch.mask)
    for groups in (batch.groups, GroupLayout.from_ids(batch.groups)):
        inputs = batch._replace(token_rewards=rewards, groups=groups)
        assert optimal_token_baseline_advantages(*inputs).count_nonzero() == 0


def test_rollouts_of_equal_energy_have_the_advantages_of_dr_grpo() -> None:
    rewards, ids, mask = torch.tensor([1.0, 0.0, 0.0, 0.5]), torch.tensor([0, 0, 1, 1]), torch.ones(4, 3).bool()
    half = torch.full((4, 3), 0.5)
    advantages = optimal_token_baseline_advantages(token_level_rewards(rewards, mask), half.log(), half, mask, ids)
    assert_same(advantages, grpo_advantages(rewards, ids, scale="none").unsqueeze(1).expand(4, 3))


def test_a_certain_token_has_no_energy_and_no_advantage() -> None:
    mask, certain = torch.ones(2, 2).bool(), torch.ones(2, 2)
    rewards = token_level_rewards(torch.tensor([1.0, 0.0]), mask)
    advantages = optimal_token_baseline_advantages(rewards, certain.log(), certain, mask, torch.tensor([0, 0]))
    assert advantages.count_nonzero() == 0


class Episodes(NamedTuple):
    step_rewards: Tensor
    states: Tensor
    mask: Tensor
    groups: Tensor


@st.composite
def episodes(draw: st.DrawFn) -> Episodes:
    """Few states, so that some are met again; some rewards not known."""
    mask, seed = draw(masks()), draw(SEEDS)
    rewards = noise(seed, *mask.shape).mul(2).round()
    rewards[noise(seed + 1, *mask.shape) < -2] = torch.nan
    ids = draw(st.lists(st.integers(0, 2), min_size=len(mask), max_size=len(mask)))
    return Episodes(rewards, noise(seed + 2, *mask.shape).round().long(), mask, torch.tensor(ids))


SCALES = st.sampled_from(["none", "group"])


@given(episodes(), RATES, st.sampled_from([0.0, 1.0, 0.3]), SCALES)
def test_gigpo_agrees_with_the_oracle(batch: Episodes, discount: float, step_weight: float, scale: Any) -> None:
    options = {"discount": discount, "step_weight": step_weight, "scale": scale}
    expected = oracles.gigpo_advantages(*batch, **options)
    assert_same(gigpo_advantages(*batch, **options), expected, atol=1e-7)
    layout = GroupLayout.from_ids(batch.groups)
    assert_same(gigpo_advantages(*batch[:-1], layout, **options), expected, atol=1e-7)
    assert expected[~batch.mask].count_nonzero() == 0


@given(episodes(), SCALES)
def test_gigpo_without_its_steps_or_with_states_met_once_is_grpo_of_the_episodes(batch: Episodes, scale: Any) -> None:
    known = (batch.step_rewards.isfinite() | ~batch.mask).all(1) & batch.mask.any(1)
    episode = torch.where(known, torch.where(batch.mask, batch.step_rewards, 0).sum(1), torch.nan)
    expected = torch.where(batch.mask, grpo_advantages(episode, batch.groups, scale=scale).unsqueeze(1), 0)
    assert_same(gigpo_advantages(*batch, step_weight=0, scale=scale), expected)
    apart = batch._replace(states=torch.arange(batch.states.numel()).view_as(batch.states))
    assert_same(gigpo_advantages(*apart, scale=scale), expected)


@given(episodes(), SCALES, SEEDS)
def test_gigpo_depends_on_which_states_are_equal_only(batch: Episodes, scale: Any, seed: int) -> None:
    names = torch.randperm(64, generator=torch.Generator().manual_seed(seed)) * 2**40
    renamed = batch._replace(states=names[batch.states + 32] + batch.groups.unsqueeze(1))
    assert_same(gigpo_advantages(*renamed, scale=scale), gigpo_advantages(*batch, scale=scale))


def test_gigpo_passes_gradcheck() -> None:
    mask, groups = torch.tensor([[True, True, False], [True, True, True]]), torch.tensor([0, 0])
    states, rewards = torch.tensor([[1, 2, 0], [1, 3, 2]]), noise(0, 2, 3).requires_grad_()
    for scale in ("none", "group"):
        assert torch.autograd.gradcheck(lambda x, s=scale: gigpo_advantages(x, states, mask, groups, scale=s), rewards)


@given(masks(), SEEDS, st.sampled_from([torch.nan, torch.inf]))
def test_what_is_under_the_mask_changes_nothing_in_the_younger_estimators(
    mask: Tensor, seed: int, rubbish: float
) -> None:
    def everything(rewards: Tensor, values: Tensor) -> list[Tensor]:
        states = noise(seed + 2, *mask.shape).round().long()
        return [
            optimal_token_baseline_advantages(rewards, -values.abs(), values.sigmoid(), mask, groups),
            gigpo_advantages(rewards, states, mask, groups),
            clipped_value_loss(values, rewards, values - rewards, mask),
        ]

    rewards, values, groups = noise(seed, *mask.shape), noise(seed + 1, *mask.shape), torch.zeros(len(mask)).long()
    dirty = torch.where(mask, rewards, rubbish), torch.where(mask, values, rubbish)
    assert_equal(everything(*dirty), everything(rewards, values))


def test_nothing_under_the_mask_reaches_the_gradient_of_the_value_loss() -> None:
    mask = torch.tensor([[True, False]])
    values = torch.tensor([[1.0, torch.nan]], requires_grad=True)
    loss = clipped_value_loss(values, torch.zeros(1, 2), torch.tensor([[0.5, torch.nan]]), mask)
    assert torch.autograd.grad(loss, values)[0].tolist() == [[0.5, 0]]
