"""GMPO, VESPO, TOPR, Kimi k1.5: the ratio of the whole response. FIPO: that of what follows a token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipo_ops import (
    aggregate,
    clipped_surrogate,
    dro_surrogate,
    fipo_surrogate,
    geometric_mean_surrogate,
    topr_surrogate,
    truncated_importance_weights,
    vespo_surrogate,
)

from .helpers import assert_same, gradients
from .strategies import Tokens, noise, tokens
from .surrogates import call, oracle, ratios

CLIPS = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.4, 3.0]) for name in ("clip_low", "clip_high")})
BUMPS = st.fixed_dictionaries(
    {
        "k_positive": st.sampled_from([0.0, 2.0]),
        "lambda_positive": st.sampled_from([0.5, 3.0]),
        "k_negative": st.sampled_from([1.0, 3.0]),
        "lambda_negative": st.sampled_from([1.0, 2.0]),
    }
)


@given(tokens(), CLIPS)
def test_gmpo_agrees_with_the_oracle_for_any_clip(batch: Tokens, clips: dict[str, float]) -> None:
    assert_same(
        call("geometric_mean_surrogate", batch, **clips).loss, oracle("geometric_mean_surrogate", batch, **clips)
    )


def test_gmpo_with_unequal_bounds_is_as_in_trl_and_verl() -> None:
    """The paper clips the ratio raised to the sign of A: e^-0.5 = 0.607, where these give e^-0.2 = 0.819."""
    d, mask = torch.tensor([[-1.5]]), torch.tensor([[True]])
    ratio = geometric_mean_surrogate(d, torch.tensor([-1.0]), mask, clip_low=0.2, clip_high=0.5).ratio
    assert ratio.item() == pytest.approx(0.8187, abs=1e-4)


@given(tokens(), BUMPS)
def test_vespo_agrees_with_the_oracle_for_any_bump(batch: Tokens, bump: dict[str, float]) -> None:
    assert_same(call("vespo_surrogate", batch, **bump).loss, oracle("vespo_surrogate", batch, **bump))


@given(tokens(), CLIPS)
def test_gmpo_clips_on_the_side_of_the_advantage_alone(batch: Tokens, clips: dict[str, float]) -> None:
    d, advantage = ratios(batch), batch.advantages.unsqueeze(1)
    beyond = ((advantage > 0) & (d > clips["clip_high"])) | ((advantage < 0) & (d < -clips["clip_low"]))
    clipped = call("geometric_mean_surrogate", batch, **clips).clipped
    assert torch.equal(clipped & (d.abs() <= 80), beyond & batch.mask & (d.abs() <= 80))


@given(tokens())
def test_gmpo_is_the_same_at_every_token(batch: Tokens) -> None:
    result = call("geometric_mean_surrogate", batch)
    for values in (result.loss, result.ratio):
        assert_same(values, values[:, :1].expand_as(values))


def test_one_outlier_does_not_rule_a_geometric_mean() -> None:
    d, mask = torch.zeros(1, 100), torch.ones(1, 100, dtype=torch.bool)
    d[0, 0] = 20
    assert geometric_mean_surrogate(d, torch.tensor([-1.0]), mask).loss[0, 0] < 1.25


def test_vespo_weighs_most_near_ratio_one_and_least_far_from_it() -> None:
    logprobs, mask = -torch.ones(5, 1), torch.ones(5, 1, dtype=torch.bool)
    d = torch.tensor([[-20.0], [-1.0], [0.0], [1.0], [20.0]])
    weights = vespo_surrogate(logprobs, d, torch.ones(5), mask).loss[:, 0]
    assert weights[2].item() == pytest.approx(1)
    assert (weights[[0, 4]] < 1e-8).all()
    assert (weights[[1, 3]] < 1).all()


@given(tokens())
def test_vespo_takes_the_ratio_of_the_whole_response(batch: Tokens) -> None:
    total = torch.where(batch.mask, ratios(batch), 0).sum(1, keepdim=True).clamp(-80, 80)
    assert_same(call("vespo_surrogate", batch).ratio, total.exp().expand(batch.mask.shape))


@given(tokens())
def test_vespo_with_importance_weights_is_that_of_the_ratio_to_the_rollout_engine(batch: Tokens) -> None:
    rollout = batch.old_logprobs + 0.1 * noise(0, *batch.mask.shape)
    weights = truncated_importance_weights(batch.old_logprobs, rollout, batch.mask, cap=1e9)
    direct = call("vespo_surrogate", batch, batch.logprobs - rollout).loss
    assert_same(call("vespo_surrogate", batch, importance_weights=weights).loss, direct, rtol=1e-6)


@given(tokens())
def test_topr_takes_good_responses_as_they_are_and_tapers_bad_ones(batch: Tokens) -> None:
    result = call("topr_surrogate", batch)
    loss, advantage = -batch.advantages.unsqueeze(1) * batch.logprobs, batch.advantages.unsqueeze(1)
    assert_same(result.loss, torch.where(advantage < 0, result.ratio.clamp(max=1), 1) * loss)
    assert torch.equal(result.clipped, (advantage < 0) & (result.ratio > 1))


def test_topr_keeps_a_gradient_where_ppo_has_none() -> None:
    d, mask, advantage = torch.tensor([[-1.0, -1.0]]), torch.ones(1, 2).bool(), torch.tensor([-1.0])
    assert clipped_surrogate(d, advantage).clipped.all()
    _, grad = gradients(lambda x: topr_surrogate(x, d, advantage, mask).loss, torch.full((1, 2), -1.0))
    assert (grad > 0).all()


@given(tokens(), st.sampled_from([0.0, 0.1, 2.0]))
def test_dro_of_a_response_is_the_policy_gradient_and_the_square_of_its_log_ratio(batch: Tokens, tau: float) -> None:
    d = ratios(batch).clamp(-20, 20)
    loss = call("dro_surrogate", batch, d, tau=tau).loss
    total = torch.where(batch.mask, d, 0).sum(1)
    policy_gradient = torch.where(batch.mask, -batch.advantages.unsqueeze(1) * batch.logprobs, 0).sum(1)
    assert_same(torch.where(batch.mask, loss, 0).sum(1), policy_gradient + tau / 2 * total.square())


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_dro_is_least_where_the_log_ratio_is_the_advantage_over_tau(level: str) -> None:
    old, advantages, mask = -noise(0, 2, 3).abs(), torch.tensor([1.0, -0.5]).double(), torch.ones(2, 3).bool()
    share = 3 if level == "sequence" else 1  # a response's log-ratio is a sum of three
    best = old + advantages.unsqueeze(1) / 0.5 / share
    _, grad = gradients(lambda x: dro_surrogate(x, x - old, advantages, mask, tau=0.5, level=level).loss.sum(), best)
    assert_same(grad, torch.zeros_like(grad))


FLOWS = st.fixed_dictionaries(
    {
        "half_life": st.sampled_from([0.5, 2.0, 32.0]),
        "weight_low": st.sampled_from([0.0, 0.8, 1.0]),
        "weight_high": st.sampled_from([1.0, 1.2, 10.0]),
        "safe_ratio": st.sampled_from([0.5, 4.0]),
        "dual_clip": st.sampled_from([1.5, 10.0]),
    }
)


@given(tokens(), FLOWS)
def test_fipo_agrees_with_the_oracle_for_any_flow(batch: Tokens, options: dict[str, float]) -> None:
    assert_same(call("fipo_surrogate", batch, **options).loss, oracle("fipo_surrogate", batch, **options))


@given(tokens())
def test_fipo_without_weights_is_the_clipped_surrogate(batch: Tokens) -> None:
    plain = clipped_surrogate(ratios(batch), batch.advantages, epsilon_high=0.28, dual_clip=10.0)
    assert_same(tuple(call("fipo_surrogate", batch, weight_high=1.0)), tuple(plain))


def test_fipo_looks_ahead_and_not_back() -> None:
    d, mask = torch.zeros(1, 4), torch.ones(1, 4).bool()
    d[0, 2] = 0.1
    loss = fipo_surrogate(d, torch.ones(1), mask, half_life=1.0, epsilon_high=1.0).loss
    expected = -torch.tensor([[0.025, 0.05, 0.2, 0.0]]).exp()  # half as much a token earlier; the token itself has both
    assert_same(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("length", [63, 64, 65, 200])
def test_fipo_looks_over_the_ends_of_its_blocks(length: int) -> None:
    """The sum is taken in blocks of 64 tokens."""
    batch = Tokens(-noise(0, 1, length).abs(), torch.empty(0), noise(1, 1), noise(2, 1, length) > -1)
    batch = batch._replace(old_logprobs=batch.logprobs - noise(3, 1, length) / 20)
    options = {"weight_low": 0.0, "weight_high": 1e9, "half_life": 50.0}
    assert_same(call("fipo_surrogate", batch, **options).loss, oracle("fipo_surrogate", batch, **options))


@given(tokens())
def test_what_a_response_is_padded_with_changes_none_of_them(batch: Tokens) -> None:
    for name in ("fipo_surrogate", "topr_surrogate", "dro_surrogate", "vespo_surrogate"):
        wide = Tokens(*(torch.nn.functional.pad(x, (0, 2)) if x.ndim == 2 else x for x in batch))
        narrow = aggregate(call(name, batch).loss, batch.mask, mode="seq-mean-token-sum")
        assert_same(aggregate(call(name, wide).loss, wide.mask, mode="seq-mean-token-sum"), narrow)
