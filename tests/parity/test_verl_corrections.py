"""verl's corrections for the rollout engine, its entropy and log-probabilities."""

from functools import partial

import pytest
import torch
from hypothesis import given
from torch import Tensor
from verl.trainer.ppo.rollout_corr_helper import compute_offpolicy_metrics, compute_rollout_correction_weights
from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

from clipo_ops import (
    approximate_kl,
    effective_sample_size,
    log_ratio,
    masked_importance_weights,
    token_entropy,
    token_logprobs,
    truncated_importance_weights,
)

from ..ops import helpers
from ..ops.strategies import SEEDS, noise
from .batches import Tokens, tokens

assert_same = partial(helpers.assert_same, rtol=1e-7, atol=1e-9)

FUNCTIONS_OF_IDS = ((token_logprobs, "token_ids"), (logprobs_from_logits, "labels"))


def theirs(batch: Tokens, level: str, threshold: str | float) -> Tensor:
    ratio = batch.logprobs - batch.old_logprobs
    return compute_rollout_correction_weights(ratio, batch.mask.double(), level, threshold)[0]


@pytest.mark.parametrize("level", ["token", "sequence"])
@given(batch=tokens())
def test_importance_weights_are_the_same(level: str, batch: Tokens) -> None:
    pair = (batch.logprobs, batch.old_logprobs, batch.mask)
    truncated = truncated_importance_weights(*pair, level=level)
    assert_same(torch.where(batch.mask, truncated, 0), theirs(batch, level, 2.0))
    masked = torch.where(batch.mask, masked_importance_weights(*pair, level=level), 0)
    if masked.any():
        assert_same(masked, theirs(batch, level, "0.5_2.0"))


@given(batch=tokens())
def test_diagnostics_are_the_same(batch: Tokens) -> None:
    ratio = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
    metrics = compute_rollout_correction_weights(ratio, batch.mask.double(), rollout_is_threshold=1e9)[1]
    assert_same(effective_sample_size(ratio, batch.mask).item(), metrics["rollout_is_eff_sample_size"])
    metrics = compute_offpolicy_metrics(batch.logprobs, batch.old_logprobs, batch.mask.double())
    assert_same(approximate_kl(ratio, batch.mask).item(), metrics["k3_kl"])


@given(seed=SEEDS)
def test_entropy_and_log_probabilities_are_the_same(seed: int) -> None:
    logits, ids = 3 * noise(seed, 2, 3, 5), torch.arange(6).view(2, 3) % 5
    assert_same(token_entropy(logits), entropy_from_logits(logits))
    assert_same(token_logprobs(logits, ids), logprobs_from_logits(logits, ids))
    assert_same(helpers.gradients(token_entropy, logits), helpers.gradients(entropy_from_logits, logits))
    pair = (partial(function, **{name: ids}) for function, name in FUNCTIONS_OF_IDS)
    assert_same(*(helpers.gradients(function, logits) for function in pair))


# --- where verl's numbers break


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_log_probability_of_nan_reaches_verls_weights(level: str) -> None:
    """An engine that cannot give one, for one token of a response: the token counts as on-policy for us."""
    logprobs = torch.tensor([[-1.0, -1.0]], dtype=torch.float64)
    old_logprobs = torch.tensor([[-1.2, torch.nan]], dtype=torch.float64)
    batch = Tokens(logprobs, old_logprobs, torch.ones(1), logprobs < 0, -logprobs)
    assert theirs(batch, level, 2.0)[0, 1].isnan()
    own = torch.tensor(0.2).double().exp()
    expected = torch.stack([own, torch.ones_like(own) if level == "token" else own]).unsqueeze(0)
    assert_same(truncated_importance_weights(logprobs, old_logprobs, batch.mask, level=level), expected)


def test_a_batch_without_a_ratio_in_bounds_raises_in_verl() -> None:
    logprobs = torch.full((1, 2), -1.0)
    batch = Tokens(logprobs, logprobs - 1, torch.ones(1), logprobs < 0, -logprobs)
    with pytest.raises(ZeroDivisionError):
        theirs(batch, "token", "0.5_2.0")
    assert masked_importance_weights(*batch[:2], batch.mask).count_nonzero() == 0


def test_a_token_that_cannot_occur_makes_verls_entropy_nan() -> None:
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]]], dtype=torch.float64)
    assert entropy_from_logits(logits).isnan().all()
    assert_same(token_entropy(logits), torch.tensor([[2.0]]).double().log())
