"""The mismatch between a rollout engine and the trainer: measured, limited, corrected."""

import math
from typing import Any

import pytest
import torch

from clipo_ops import aggregate, truncated_importance_weights, vespo_surrogate
from clipo_train.config import LossConfig
from clipo_train.errors import ConfigError
from clipo_train.objective import PolicyLoss, policy_loss
from clipo_train.rollout import Generation
from clipo_train.rollout.mismatch import logprob_gap, require_agreement

MASK = torch.tensor([[True, True, True], [True, True, False]])
LOGPROBS = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -7.0]])
RATIOS = torch.tensor([[1, 3, 0.25], [1.5, 1, 9]])
ROLLOUT = LOGPROBS - RATIOS.log()
ADVANTAGES = torch.tensor([1.0, -2.0])


def generation(logprobs: torch.Tensor | None) -> Generation:
    return Generation(torch.zeros(2, 4).long(), torch.ones(2, 4).bool(), MASK, ["", ""], torch.ones(2).bool(), logprobs)


def test_the_gap_is_over_response_tokens() -> None:
    gap = logprob_gap(generation(ROLLOUT), LOGPROBS)
    assert gap["rollout/engine_logprob_gap"] == pytest.approx((math.log(3) + math.log(4) + math.log(1.5)) / 5)
    assert gap["rollout/engine_logprob_gap_max"] == pytest.approx(math.log(4))
    assert logprob_gap(generation(None), LOGPROBS) == {}


@pytest.mark.parametrize("difference", [0.0011, 3.0, math.inf, math.nan])
def test_a_difference_above_the_tolerance_is_refused_in_one_line(difference: float) -> None:
    logprobs = LOGPROBS.clone()
    logprobs[0, 1] += difference
    gap = logprob_gap(generation(logprobs), LOGPROBS)
    message = rf"^rollout\.logprob_tolerance: expected .* within 0\.001 .*, got {difference:.3g} apart[^\n]*$"
    with pytest.raises(ConfigError, match=message):
        require_agreement(gap, 1e-3)


def test_a_difference_within_the_tolerance_passes() -> None:
    require_agreement(logprob_gap(generation(LOGPROBS + 9e-4), LOGPROBS), 1e-3)
    require_agreement(logprob_gap(generation(ROLLOUT), LOGPROBS), 2.0)
    require_agreement({}, 0.0)


def loss(rollout_logprobs: torch.Tensor | None, **settings: Any) -> tuple[PolicyLoss, torch.Tensor]:
    """On-policy, so that the loss of a token is minus its advantage; and the gradient by log-probabilities."""
    logprobs = LOGPROBS.clone().requires_grad_()
    count = MASK.sum().float()
    result = policy_loss(
        logprobs,
        LOGPROBS,
        None,
        ADVANTAGES,
        MASK,
        LossConfig(**settings),
        denominator=count,
        tokens=count,
        rollout_logprobs=rollout_logprobs,
    )
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    return result, gradient


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"rollout_correction": "truncated"}, [[1, 2, 0.25], [1.5, 1, 0]]),
        ({"rollout_correction": "truncated", "rollout_high": 10}, [[1, 3, 0.25], [1.5, 1, 0]]),
        ({"rollout_correction": "truncated", "rollout_level": "sequence"}, [[0.75] * 3, [1.5, 1.5, 0]]),
        ({"rollout_correction": "masked"}, [[1, 0, 0], [1.5, 1, 0]]),
        ({"rollout_correction": "masked", "rollout_low": 0.1}, [[1, 0, 0.25], [1.5, 1, 0]]),
        ({"rollout_correction": "none"}, [[1, 1, 1], [1, 1, 0]]),
    ],
)
def test_the_correction_weights_the_loss_of_each_token(settings: Any, weights: list[list[float]]) -> None:
    result, gradient = loss(ROLLOUT, **settings)
    expected = -torch.tensor(weights) * ADVANTAGES[:, None] / MASK.sum()
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.loss.detach(), expected.sum(), atol=1e-6, rtol=1e-5)


def test_vespo_takes_the_weights_into_its_own() -> None:
    result, _ = loss(ROLLOUT, surrogate="vespo", rollout_correction="truncated")
    weights = truncated_importance_weights(LOGPROBS, ROLLOUT, MASK)
    ratio = torch.zeros_like(LOGPROBS)
    expected = vespo_surrogate(LOGPROBS, ratio, ADVANTAGES, MASK, importance_weights=weights).loss
    torch.testing.assert_close(result.loss.detach(), aggregate(expected, MASK))


def test_without_log_probabilities_of_the_engine_there_is_nothing_to_correct() -> None:
    plain, _ = loss(None)
    corrected, _ = loss(None, rollout_correction="truncated")
    assert plain.loss.equal(corrected.loss)


def test_a_selection_keeps_the_engines_log_probabilities() -> None:
    part = generation(ROLLOUT).select(torch.tensor([1]))
    assert part.logprobs is not None
    assert part.logprobs.equal(ROLLOUT[1:, :2])
