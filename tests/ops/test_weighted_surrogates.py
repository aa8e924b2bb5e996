"""CISPO's bounds, the trust regions of DPPO and GLM-5, SAPO's gate: known values and the clip indicators."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipo_ops import cispo_surrogate, clipped_surrogate, dppo_surrogate, policy_gradient_surrogate, sapo_surrogate

from .helpers import assert_same
from .strategies import Tokens, tokens
from .surrogates import call, oracle, ratios

CISPO = st.fixed_dictionaries(
    {"ratio_low": st.sampled_from([0.0, 0.8, 1.0]), "ratio_high": st.sampled_from([1.0, 5.0])}
)
DPPO = st.fixed_dictionaries(
    {
        "divergence": st.sampled_from(["tv", "kl"]),
        "threshold_low": st.sampled_from([None, 0.01, 0.2]),
        "threshold_high": st.sampled_from([None, 0.3, 1e9]),
        "ratio_high": st.sampled_from([1.0, 20.0, math.inf]),
    }
)
DIS = st.fixed_dictionaries(
    {"epsilon_low": st.sampled_from([0.2, 0.8, 1.0]), "epsilon_high": st.sampled_from([0.2, 3.0, 1e9])}
)
SAPO = st.fixed_dictionaries(
    {name: st.sampled_from([0.1, 1.0, 10.0]) for name in ("temperature_positive", "temperature_negative")}
)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("cispo_surrogate", CISPO), ("dis_surrogate", DIS), ("dppo_surrogate", DPPO), ("sapo_surrogate", SAPO)],
)
@given(st.data(), tokens())
def test_agrees_with_the_oracle_for_any_options(name: str, drawn: Any, data: st.DataObject, batch: Tokens) -> None:
    options = data.draw(drawn)
    assert_same(call(name, batch, **options).loss, oracle(name, batch, **options))


@given(tokens(), CISPO)
def test_cispo_says_where_the_weight_is_not_the_ratio(batch: Tokens, bounds: dict[str, float]) -> None:
    result = call("cispo_surrogate", batch, **bounds)
    outside = (result.ratio < bounds["ratio_low"]) | (result.ratio > bounds["ratio_high"])
    assert torch.equal(result.clipped, outside)


def test_cispo_keeps_the_gradient_of_a_token_that_ppo_clips() -> None:
    logprobs, d = torch.tensor([[-1.0]], requires_grad=True), torch.tensor([[3.0]])
    advantage = torch.ones(1)
    assert clipped_surrogate(d, advantage).clipped.item()
    (grad,) = torch.autograd.grad(cispo_surrogate(logprobs, d, advantage).loss.sum(), logprobs)
    assert grad.item() == pytest.approx(-5)


@given(tokens(), DPPO)
def test_dppo_drops_only_what_moves_on_the_way_of_its_advantage(batch: Tokens, options: dict[str, Any]) -> None:
    result = call("dppo_surrogate", batch, **options)
    assert not (result.clipped & (batch.advantages.unsqueeze(1) * ratios(batch) <= 0)).any()
    assert result.loss[result.clipped].count_nonzero() == 0


def test_dppo_lets_a_rare_token_grow_that_ppo_clips_and_stops_a_likely_one() -> None:
    """A ratio of 2 at probability .0001 moves little; one of 1.6 at .5 moves much."""
    old = torch.tensor([[math.log(1e-4), math.log(0.5)]])
    new = torch.tensor([[math.log(2e-4), math.log(0.8)]])
    for divergence in ("tv", "kl"):
        result = dppo_surrogate(new, new - old, torch.ones(1), divergence=divergence, threshold_high=0.1)
        assert result.clipped.tolist() == [[False, True]]


@pytest.mark.parametrize(("divergence", "moved"), [("tv", 0.15), ("kl", 0.05)])
def test_dppo_has_the_thresholds_of_its_authors(divergence: str, moved: float) -> None:
    """From a probability of 0.5 to 0.7 the binary KL is 0.087 and the total variation 0.2; both exceed the defaults."""
    old, new = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.7)]])
    for advantage, ends in ((1.0, (old, new)), (-1.0, (new, old))):
        before, after = ends
        ours = dppo_surrogate(after, after - before, torch.tensor([advantage]), divergence=divergence)
        given = {"threshold_low": moved, "threshold_high": moved}
        theirs = dppo_surrogate(after, after - before, torch.tensor([advantage]), divergence=divergence, **given)
        assert ours.clipped.item()
        assert theirs.clipped.item()


@given(tokens(), DIS)
def test_dis_drops_what_leaves_the_trust_region_whatever_its_advantage(batch: Tokens, bounds: dict[str, float]) -> None:
    result = call("dis_surrogate", batch, **bounds)
    inside = (result.ratio > 1 - bounds["epsilon_low"]) & (result.ratio < 1 + bounds["epsilon_high"])
    assert torch.equal(result.clipped, inside.logical_not())
    assert result.loss[result.clipped].count_nonzero() == 0
    assert_same(result.loss[inside], (-result.ratio * batch.advantages.unsqueeze(1) * batch.logprobs)[inside])


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_a_certain_token_has_a_finite_divergence(divergence: str) -> None:
    logprobs, d = torch.tensor([[0.0, 0.0, -1e-9]]), torch.tensor([[0.0, 1.0, -1.0]])
    result = dppo_surrogate(logprobs, d, torch.tensor([[1.0, 1.0, -1.0]]), divergence=divergence)
    assert result.clipped.tolist()[0][:2] == [False, True]
    assert result.loss.isfinite().all()


@given(tokens(), SAPO)
def test_sapo_never_clips_and_its_gate_is_bounded(batch: Tokens, temperatures: dict[str, float]) -> None:
    result = call("sapo_surrogate", batch, **temperatures)
    assert not result.clipped.any()
    lowest = min(temperatures.values())
    assert (result.loss.abs() <= 4 / lowest * batch.advantages.abs().unsqueeze(1) + 1e-12).all()


def test_sapo_fades_a_token_out_on_either_side() -> None:
    d = torch.tensor([[-5.0, 0.0, 5.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(sapo_surrogate(d, torch.ones(1)).loss.sum(), d)
    assert grad[0, 1].item() == pytest.approx(-1)
    assert (grad[0, [0, 2]].abs() < 0.01).all()


@given(tokens())
def test_reinforce_has_ratio_one_everywhere(batch: Tokens) -> None:
    result = policy_gradient_surrogate(batch.logprobs, batch.advantages)
    assert torch.equal(result.ratio, torch.ones_like(result.ratio))
    assert_same(result.loss, -batch.advantages.unsqueeze(1) * batch.logprobs)
