"""Weights and masks against the rollout engine or an older policy, and the tokens of high entropy."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    divergence_mask,
    importance_ratio_mask,
    log_ratio,
    masked_importance_weights,
    off_policy_sequence_mask,
    second_moment_mask,
    top_entropy_mask,
    truncated_importance_weights,
    veto_mask,
)

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same
from .strategies import SEEDS, Tokens, masks, noise, tokens

LEVELS = ["token", "sequence", "geometric"]
every_level = pytest.mark.parametrize("level", LEVELS)
WEIGHTS = [
    (truncated_importance_weights, oracles.truncated_importance_weights, {"cap": 3.0}),
    (truncated_importance_weights, oracles.truncated_importance_weights, {"floor": 0.5, "cap": 5.0}),
    (masked_importance_weights, oracles.masked_importance_weights, {"low": 0.4, "high": 3.0}),
]
every_weight = pytest.mark.parametrize(
    ("weights", "oracle", "options"), WEIGHTS, ids=["truncated", "floored", "masked"]
)


def unknown(batch: Tokens) -> Tensor:
    """Log-probabilities of the engine, some of which it could not give."""
    return torch.where(batch.old_logprobs < -150, torch.nan, batch.old_logprobs)


@every_level
@every_weight
@given(tokens())
def test_weights_agree_with_the_oracle(weights: Any, oracle: Any, options: Any, level: str, batch: Tokens) -> None:
    arguments = batch.logprobs, unknown(batch), batch.mask
    assert_same(weights(*arguments, level=level, **options), oracle(*arguments, level=level, **options))


@every_weight
@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(tokens())
def test_half_precision_is_rounded_once(weights: Any, oracle: Any, options: Any, dtype: Any, batch: Tokens) -> None:
    arguments = batch.logprobs.to(dtype), batch.old_logprobs.to(dtype), batch.mask
    assert_rounded(weights(*arguments, **options), oracle(*arguments, **options), dtype, slack=1e-5)


@every_level
@every_weight
@given(tokens())
def test_the_same_probabilities_and_unknown_ones_weigh_exactly_one(
    weights: Any, oracle: Any, options: Any, level: str, batch: Tokens
) -> None:
    for rollout in (batch.logprobs, torch.full_like(batch.logprobs, torch.nan)):
        assert (weights(batch.logprobs, rollout, batch.mask, level=level) == 1).all()


@every_level
@every_weight
@given(tokens(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_under_the_mask_changes_no_weight(
    weights: Any, oracle: Any, options: Any, level: str, batch: Tokens, rubbish: float
) -> None:
    clean = batch.logprobs, batch.old_logprobs
    dirty = [torch.where(batch.mask, x, rubbish) for x in clean]
    assert_equal(weights(*dirty, batch.mask, level=level), weights(*clean, batch.mask, level=level))


@every_level
@given(tokens())
def test_both_weights_are_the_ratio_within_their_bounds(level: str, batch: Tokens) -> None:
    arguments = batch.logprobs, batch.old_logprobs, batch.mask
    truncated = truncated_importance_weights(*arguments, cap=2.0, level=level)
    masked = masked_importance_weights(*arguments, low=0.0, high=2.0, level=level)
    assert (truncated <= 2).all()
    assert_same(masked[masked > 0], truncated[masked > 0])
    assert (truncated[masked == 0] == 2).all()  # a ratio is never exactly 0


def test_levels_are_a_token_a_product_and_a_geometric_mean() -> None:
    old, rollout = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.2, -1.4]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    logs = {level: truncated_importance_weights(old, rollout, mask, level=level).log() for level in LEVELS}
    torch.testing.assert_close(logs["token"], torch.tensor([[0.2, 0.4]]))
    torch.testing.assert_close(logs["sequence"], torch.tensor([[0.6, 0.6]]))
    torch.testing.assert_close(logs["geometric"], torch.tensor([[0.3, 0.3]]))


@every_level
@given(tokens())
def test_a_floor_bounds_weights_from_below_and_changes_no_other(level: str, batch: Tokens) -> None:
    arguments = batch.logprobs, unknown(batch), batch.mask
    free = truncated_importance_weights(*arguments, level=level)
    floored = truncated_importance_weights(*arguments, floor=0.5, level=level)
    assert_equal(floored, free.clamp(min=0.5))


# --- masks


def assert_equal_off_thresholds(mask: Any, oracle: Any, *arguments: Tensor, **options: Any) -> None:
    """On the threshold, rounding decides: there, either is right."""
    name = "threshold" if "threshold" in options else "high"
    slack = 1e-9 * max(1, options[name])
    inside, outside = (
        oracle(*arguments, **{**options, name: max(options[name] + sign * slack, 0 if name == "threshold" else 1)})
        for sign in (-1, 1)
    )
    kept, certain = mask(*arguments, **options), inside == outside
    assert torch.equal(kept[certain], outside[certain])


@every_level
@given(tokens())
def test_the_ratio_mask_agrees_with_the_oracle(level: str, batch: Tokens) -> None:
    arguments = batch.logprobs, unknown(batch), batch.mask
    options = {"low": 0.4, "high": 3.0, "level": level}
    assert_equal_off_thresholds(importance_ratio_mask, oracles.importance_ratio_mask, *arguments, **options)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("level", ["token", "sequence-sum", "sequence-mean"])
@given(tokens(), st.sampled_from([0.0, 0.01, 0.5, 100.0]))
def test_the_divergence_mask_agrees_with_the_oracle(
    level: str, estimator: str, batch: Tokens, threshold: float
) -> None:
    arguments = batch.logprobs, unknown(batch), batch.mask
    options = {"threshold": threshold, "estimator": estimator, "level": level}
    assert_equal_off_thresholds(divergence_mask, oracles.divergence_mask, *arguments, **options)


@given(tokens(), st.sampled_from([0.0, 0.1, 0.5, 30.0]))
def test_the_off_policy_mask_agrees_with_the_oracle(batch: Tokens, threshold: float) -> None:
    arguments = batch.logprobs, unknown(batch), batch.advantages, batch.mask
    oracle = oracles.off_policy_sequence_mask
    assert_equal_off_thresholds(off_policy_sequence_mask, oracle, *arguments, threshold=threshold)


@given(tokens(), st.sampled_from([0.0, 0.04, 0.5, 1e4]))
def test_the_second_moment_mask_drops_as_many_as_the_oracle(batch: Tokens, threshold: float) -> None:
    """Which of equal tokens goes is open."""
    arguments = batch.logprobs, unknown(batch), batch.advantages, batch.mask
    kept, expected = (f(*arguments, threshold=threshold) for f in (second_moment_mask, oracles.second_moment_mask))
    squares = log_ratio(*arguments[:2], batch.mask, limit=80).square()
    assert_same(squares[kept].sort().values, squares[expected].sort().values, atol=1e-7)


@given(tokens(), st.sampled_from([0.0, 0.04, 0.5]))
def test_the_second_moment_is_bounded_by_dropping_only_the_largest(batch: Tokens, threshold: float) -> None:
    arguments = batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask
    kept = second_moment_mask(*arguments, threshold=threshold)
    d = log_ratio(*arguments[:2], batch.mask, limit=80)
    touched = batch.mask & (d * batch.advantages.unsqueeze(1) > 0)
    remaining, dropped = d[kept & touched].square(), d[batch.mask & ~kept].square()
    assert torch.equal(kept | touched, batch.mask)
    if len(remaining):
        assert remaining.mean() <= threshold * (1 + 1e-9)
    if len(dropped) and len(remaining):
        assert dropped.min() >= remaining.max()
    if len(dropped):
        assert torch.cat([remaining, dropped.min().unsqueeze(0)]).mean() > threshold


MASKS: dict[str, Any] = {
    "ratio": lambda x, y, _, mask: importance_ratio_mask(x, y, mask, low=0.5, high=2.0, level="token"),
    "geometric": lambda x, y, _, mask: importance_ratio_mask(x, y, mask, low=0.99, high=1.01, level="geometric"),
    "divergence": lambda x, y, _, mask: divergence_mask(x, y, mask, threshold=0.1),
    "off-policy": off_policy_sequence_mask,
    "second moment": second_moment_mask,
}
every_mask = pytest.mark.parametrize("function", MASKS.values(), ids=list(MASKS))


@every_mask
@given(tokens(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_mask_is_a_subset_and_blind_to_what_is_masked(function: Any, batch: Tokens, rubbish: float) -> None:
    clean = batch.logprobs, batch.old_logprobs
    kept = function(*clean, batch.advantages, batch.mask)
    assert not (kept & ~batch.mask).any()
    dirty = [torch.where(batch.mask, x, rubbish) for x in clean]
    assert torch.equal(function(*dirty, batch.advantages, batch.mask), kept)


@every_mask
@given(tokens())
def test_a_mask_keeps_what_has_not_moved_or_is_not_known(function: Any, batch: Tokens) -> None:
    for old in (batch.logprobs, torch.full_like(batch.logprobs, torch.nan)):
        assert torch.equal(function(batch.logprobs, old, batch.advantages, batch.mask), batch.mask)


@every_mask
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_a_mask_without_a_token(function: Any, shape: tuple[int, int]) -> None:
    values, mask = torch.ones(shape), torch.zeros(shape).bool()
    assert torch.equal(function(values, values, torch.ones(shape[0]), mask), mask)
    assert torch.equal(veto_mask(mask, mask), mask)


@given(tokens())
def test_the_off_policy_mask_keeps_responses_no_worse_than_the_mean(batch: Tokens) -> None:
    kept = off_policy_sequence_mask(batch.logprobs, batch.old_logprobs, batch.advantages.abs(), batch.mask)
    assert torch.equal(kept, batch.mask)


@given(masks(), SEEDS)
def test_one_token_vetoes_its_whole_response(mask: Tensor, seed: int) -> None:
    keep = noise(seed, *mask.shape) > -1
    kept = veto_mask(keep, mask)
    assert torch.equal(kept, oracles.veto_mask(keep, mask))
    assert torch.equal(veto_mask(kept, mask), kept)
    assert torch.equal(kept.any(1), mask.any(1) & ~(mask & ~keep).any(1))


@given(tokens())
def test_masked_weights_are_the_ratio_times_its_mask(batch: Tokens) -> None:
    arguments = batch.logprobs, batch.old_logprobs, batch.mask
    kept = importance_ratio_mask(*arguments, low=0.5, high=2.0, level="token")
    ratio = truncated_importance_weights(*arguments, cap=torch.inf)
    weights = masked_importance_weights(*arguments)
    assert_equal(weights[batch.mask], (ratio * kept)[batch.mask])


def test_a_geometric_gate_with_token_weights() -> None:
    """The first response's ratios cancel, the second's do not."""
    old = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]])
    rollout = torch.tensor([[-1.2, -0.8], [-1.2, -1.2]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    gate = importance_ratio_mask(old, rollout, mask, low=0.999, high=1.001, level="geometric")
    weights = truncated_importance_weights(old, rollout, mask) * gate
    torch.testing.assert_close(weights, torch.tensor([[0.2, -0.2], [-torch.inf, -torch.inf]]).exp())


@given(masks(), SEEDS, st.sampled_from([0.01, 0.2, 0.5, 1.0]), st.booleans())
def test_the_entropy_mask_agrees_with_the_oracle(mask: Tensor, seed: int, fraction: float, coarse: bool) -> None:
    entropy = noise(seed, *mask.shape).abs()
    entropy = entropy.round() if coarse else entropy  # ties
    assert torch.equal(
        top_entropy_mask(entropy, mask, fraction=fraction), oracles.top_entropy_mask(entropy, mask, fraction=fraction)
    )


@given(masks(), SEEDS, st.sampled_from([0.25, 0.5, 1.0]))
def test_the_entropy_mask_is_that_of_the_quantile(mask: Tensor, seed: int, fraction: float) -> None:
    """For fractions that have no rounding."""
    entropy = noise(seed, *mask.shape).abs().round(decimals=1)
    if mask.any():
        expected = mask & (entropy >= torch.quantile(entropy[mask], 1 - fraction))
        assert torch.equal(top_entropy_mask(entropy, mask, fraction=fraction), expected)


@given(masks(), SEEDS)
def test_entropies_under_the_mask_do_not_count(mask: Tensor, seed: int) -> None:
    entropy = noise(seed, *mask.shape)
    dirty = torch.where(mask, entropy, torch.nan)
    assert torch.equal(top_entropy_mask(dirty, mask), top_entropy_mask(entropy, mask))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_without_a_valid_token_there_is_none_of_high_entropy(shape: tuple[int, int]) -> None:
    assert not top_entropy_mask(torch.ones(shape), torch.zeros(shape, dtype=torch.bool)).any()


def test_more_tokens_than_a_quantile_takes() -> None:
    count = 2**24 + 1
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(torch.ones(count), 0.5)
    entropy = torch.arange(count, dtype=torch.float32).unsqueeze(0)
    kept = top_entropy_mask(entropy, torch.ones(1, count, dtype=torch.bool), fraction=0.25)
    assert kept.sum() == 2**22 + 1
