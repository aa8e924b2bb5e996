"""Log-ratios: clamped before anything is exponentiated, and blind to what is masked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipo_ops import gspo_token_log_ratio, log_ratio, sequence_log_ratio

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import Tokens, noise, tokens


@given(tokens(), st.sampled_from([0.1, 5.0, 20.0, 300.0]))
def test_agrees_with_the_oracle(batch: Tokens, limit: float) -> None:
    arguments = batch.logprobs, batch.old_logprobs, batch.mask
    assert_same(log_ratio(*arguments, limit=limit), oracles.log_ratio(*arguments, limit=limit))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(tokens())
def test_half_precision_becomes_float32_and_loses_nothing(dtype: torch.dtype, batch: Tokens) -> None:
    logprobs, old = batch.logprobs.to(dtype), batch.old_logprobs.to(dtype)
    assert_same(log_ratio(logprobs, old, batch.mask), oracles.log_ratio(logprobs, old, batch.mask).float(), rtol=1e-7)


@given(tokens(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(batch: Tokens, rubbish: float) -> None:
    clean = batch.logprobs, batch.old_logprobs
    dirty = [torch.where(batch.mask, x, rubbish) for x in clean]
    expected = gradients(lambda new, old: log_ratio(new, old, batch.mask), *clean)
    assert_equal(gradients(lambda new, old: log_ratio(new, old, batch.mask), *dirty), expected)


@given(tokens())
def test_the_gradient_is_one_up_to_the_limit_and_zero_beyond(batch: Tokens) -> None:
    leaf = batch.logprobs.requires_grad_()
    (grad,) = torch.autograd.grad(log_ratio(leaf, batch.old_logprobs, batch.mask).sum(), leaf)
    within = (batch.logprobs - batch.old_logprobs).abs() <= 20
    assert torch.equal(grad, (within & batch.mask).double())


@given(tokens())
def test_the_same_policy_has_ratio_exactly_one(batch: Tokens) -> None:
    assert log_ratio(batch.logprobs, batch.logprobs, batch.mask).count_nonzero() == 0


def test_a_token_that_could_not_be_sampled_is_clamped() -> None:
    impossible, possible = torch.tensor([[-torch.inf]]), torch.tensor([[-1.0]])
    mask = torch.tensor([[True]])
    assert log_ratio(impossible, possible, mask).item() == -20
    assert log_ratio(possible, impossible, mask).item() == 20
    results = gradients(lambda *pair: log_ratio(*pair, mask), impossible, impossible)
    assert all(result.item() == 0 for result in results)


def test_passes_gradcheck() -> None:
    new, old = noise(0, 2, 3).requires_grad_(), noise(1, 2, 3).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.autograd.gradcheck(lambda *pair: log_ratio(*pair, mask), (new, old))


@given(tokens())
def test_a_log_probability_that_the_engine_could_not_give_has_ratio_exactly_one(batch: Tokens) -> None:
    unknown = batch.old_logprobs < -50
    old = torch.where(unknown, torch.nan, batch.old_logprobs)
    value, grad = gradients(lambda new: log_ratio(new, old, batch.mask), batch.logprobs)
    assert value[unknown].count_nonzero() == 0
    assert_same(value[~unknown], log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)[~unknown])
    assert torch.equal(grad[unknown] > 0, batch.mask[unknown])


@given(tokens())
def test_the_log_ratio_of_a_response_agrees_with_the_oracle(batch: Tokens) -> None:
    ratio = batch.logprobs - batch.old_logprobs
    assert_same(sequence_log_ratio(ratio, batch.mask), oracles.sequence_log_ratio(ratio, batch.mask))
    assert_same(gspo_token_log_ratio(ratio, batch.mask), oracles.gspo_token_log_ratio(ratio, batch.mask))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(tokens())
def test_the_log_ratio_of_a_response_is_rounded_once(dtype: torch.dtype, batch: Tokens) -> None:
    ratio = (batch.logprobs - batch.old_logprobs).to(dtype)
    assert_rounded(sequence_log_ratio(ratio, batch.mask), oracles.sequence_log_ratio(ratio, batch.mask), dtype)
    assert_rounded(gspo_token_log_ratio(ratio, batch.mask), oracles.gspo_token_log_ratio(ratio, batch.mask), dtype)


@given(tokens())
def test_the_token_form_has_the_value_of_the_response_and_the_gradient_of_the_token(batch: Tokens) -> None:
    ratio = batch.logprobs - batch.old_logprobs
    value, grad = gradients(lambda x: gspo_token_log_ratio(x, batch.mask), ratio)
    _, own = gradients(lambda x: torch.where(batch.mask, x, 0), ratio)
    assert torch.equal(grad, own)
    per_response = sequence_log_ratio(ratio, batch.mask).unsqueeze(1).expand(ratio.shape)
    assert_same(value, torch.where(batch.mask, per_response, 0))


@given(tokens(), st.sampled_from([torch.nan, torch.inf]))
def test_a_response_is_blind_to_what_is_masked(batch: Tokens, rubbish: float) -> None:
    ratio = batch.logprobs - batch.old_logprobs
    dirty = torch.where(batch.mask, ratio, rubbish)
    for function in (sequence_log_ratio, gspo_token_log_ratio):
        expected = gradients(lambda x, f=function: f(x, batch.mask), ratio)
        assert_equal(gradients(lambda x, f=function: f(x, batch.mask), dirty), expected)


def test_the_log_ratio_of_a_response_passes_gradcheck() -> None:
    ratio, mask = noise(0, 2, 3).requires_grad_(), torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda x: sequence_log_ratio(x, mask), (ratio,))
