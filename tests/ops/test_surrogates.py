"""The clipped surrogate: the textbook's objective, and finite at any ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import clipped_surrogate, log_ratio

from . import oracles
from .helpers import HALF, assert_rounded, assert_same, gradients
from .strategies import Tokens, noise, tokens

BOUNDS = st.fixed_dictionaries(
    {
        "epsilon_low": st.sampled_from([0.0, 0.2, 1.0]),
        "epsilon_high": st.sampled_from([0.0, 0.28, 5.0]),
        "dual_clip": st.sampled_from([None, 1.5, 3.0]),
        "delta": st.sampled_from([None, 1.1, 4.0]),
    }
)


def ratios(batch: Tokens) -> Tensor:
    """Log-ratios of any size: beyond the +-20 of `log_ratio` too."""
    return batch.logprobs - batch.old_logprobs


@given(tokens(), BOUNDS)
def test_agrees_with_the_oracle(batch: Tokens, bounds: dict[str, float | None]) -> None:
    result = clipped_surrogate(ratios(batch), batch.advantages, **bounds)
    assert_same(result.loss, oracles.clipped_surrogate(ratios(batch), batch.advantages, **bounds))
    assert_same(result.ratio, ratios(batch).clamp(-80, 80).exp())


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(tokens())
def test_half_precision_is_rounded_once(dtype: torch.dtype, batch: Tokens) -> None:
    ratio, advantages = ratios(batch).clamp(-3, 3).to(dtype), batch.advantages.to(dtype)
    assert_rounded(
        clipped_surrogate(ratio, advantages).loss, oracles.clipped_surrogate(ratio, advantages), dtype, slack=1e-5
    )


@given(tokens(), BOUNDS)
def test_any_ratio_gives_a_finite_loss_and_gradient(batch: Tokens, bounds: dict[str, float | None]) -> None:
    def loss(values: Tensor) -> Tensor:
        return clipped_surrogate(values, batch.advantages.float(), **bounds).loss

    value, grad = gradients(loss, ratios(batch).float())
    assert value.isfinite().all()
    assert grad.isfinite().all()


@given(tokens(), BOUNDS)
def test_a_clipped_token_has_no_gradient_and_any_other_has_the_unclipped_one(
    batch: Tokens, bounds: dict[str, float | None]
) -> None:
    result = clipped_surrogate(leaf := ratios(batch).requires_grad_(), batch.advantages, **bounds)
    (grad,) = torch.autograd.grad(result.loss.sum(), leaf)
    unclipped = -batch.advantages.unsqueeze(1) * leaf.detach().exp() * (leaf.abs() <= 80)
    assert_same(grad, torch.where(result.clipped, 0, unclipped))


@given(tokens())
def test_at_ratio_one_the_gradient_is_that_of_minus_advantage_times_log_probability(batch: Tokens) -> None:
    old = batch.logprobs

    def loss(logprobs: Tensor) -> Tensor:
        return clipped_surrogate(log_ratio(logprobs, old, batch.mask), batch.advantages).loss

    _, grad = gradients(loss, batch.logprobs)
    _, expected = gradients(
        lambda x: torch.where(batch.mask, -batch.advantages.unsqueeze(1) * x, 0),
        batch.logprobs,
    )
    assert_same(grad, expected)


@given(tokens(), BOUNDS)
def test_without_an_advantage_there_is_no_loss_and_no_gradient(batch: Tokens, bounds: dict[str, float | None]) -> None:
    zero = torch.zeros_like(batch.advantages)
    for result in gradients(lambda x: clipped_surrogate(x, zero, **bounds).loss, ratios(batch)):
        assert result.count_nonzero() == 0


@given(tokens(), BOUNDS)
def test_an_advantage_per_rollout_is_that_of_each_token(batch: Tokens, bounds: dict[str, float | None]) -> None:
    per_token = batch.advantages.unsqueeze(1).expand(batch.mask.shape)
    per_rollout = clipped_surrogate(ratios(batch), batch.advantages, **bounds)
    assert_same(tuple(clipped_surrogate(ratios(batch), per_token, **bounds)), tuple(per_rollout))


def test_nothing_but_the_loss_has_a_gradient_and_only_to_the_log_ratio() -> None:
    ratio, advantages = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    result = clipped_surrogate(ratio, advantages)
    assert result.loss.requires_grad
    assert not result.ratio.requires_grad
    assert torch.autograd.grad(result.loss.sum(), advantages, allow_unused=True) == (None,)


@given(tokens())
def test_the_dual_clip_bounds_the_loss_of_a_negative_advantage(batch: Tokens) -> None:
    loss = clipped_surrogate(ratios(batch), batch.advantages, dual_clip=3.0).loss
    assert (loss <= 3.0 * batch.advantages.abs().unsqueeze(1) + 1e-9).all()


@given(tokens(), st.sampled_from([1.5, 3.0]))
def test_two_sided_clipping_above_the_upper_bound_is_the_dual_clip(batch: Tokens, bound: float) -> None:
    two_sided = clipped_surrogate(ratios(batch), batch.advantages, delta=bound)
    assert_same(tuple(two_sided), tuple(clipped_surrogate(ratios(batch), batch.advantages, dual_clip=bound)))


def test_passes_gradcheck() -> None:
    ratio = noise(0, 3, 4).requires_grad_()
    for dual_clip in (None, 1.5):
        assert torch.autograd.gradcheck(
            lambda x, c=dual_clip: clipped_surrogate(x, noise(1, 3), dual_clip=c).loss, (ratio,)
        )
