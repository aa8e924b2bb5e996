"""Weights against the rollout engine, the off-policy mask, and the tokens of high entropy."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    masked_importance_weights,
    off_policy_sequence_mask,
    top_entropy_mask,
    truncated_importance_weights,
)

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same
from .strategies import SEEDS, Tokens, masks, noise, tokens

LEVELS = ["token", "sequence", "geometric"]
every_level = pytest.mark.parametrize("level", LEVELS)
WEIGHTS = [
    (truncated_importance_weights, oracles.truncated_importance_weights, {"cap": 3.0}),
    (masked_importance_weights, oracles.masked_importance_weights, {"low": 0.4, "high": 3.0}),
]
every_weight = pytest.mark.parametrize(("weights", "oracle", "options"), WEIGHTS, ids=["truncated", "masked"])


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


@given(tokens(), st.sampled_from([0.0, 0.1, 0.5, 30.0]))
def test_the_off_policy_mask_agrees_with_the_oracle(batch: Tokens, threshold: float) -> None:
    arguments = batch.logprobs, unknown(batch), batch.advantages, batch.mask
    kept = off_policy_sequence_mask(*arguments, threshold=threshold)
    low, high = (
        oracles.off_policy_sequence_mask(*arguments, threshold=bound)
        for bound in (max(threshold - 1e-9, 0), threshold + 1e-9)
    )
    beside_the_threshold = low == high  # on it, rounding decides
    assert torch.equal(kept[beside_the_threshold], high[beside_the_threshold])


@given(tokens())
def test_the_off_policy_mask_keeps_what_has_not_moved_or_is_no_worse_than_the_mean(batch: Tokens) -> None:
    old = batch.old_logprobs
    assert off_policy_sequence_mask(batch.logprobs, batch.logprobs, batch.advantages, batch.mask).all()
    assert off_policy_sequence_mask(batch.logprobs, old, batch.advantages.abs(), batch.mask).all()
    nothing = torch.zeros_like(batch.mask)
    assert off_policy_sequence_mask(batch.logprobs, old, batch.advantages, nothing).all()


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
