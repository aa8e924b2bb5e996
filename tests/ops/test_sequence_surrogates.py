"""GMPO and VESPO: one value per response."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipo_ops import geometric_mean_surrogate, vespo_surrogate

from .helpers import assert_same
from .strategies import Tokens, tokens
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
