"""The papers' recipes: each is its composition and its oracle, however a batch is padded or split."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import clipo_ops
from clipo_ops import aggregate, clipo_rewards, clipped_surrogate, gspo_token_log_ratio, log_ratio, supcon_out

from . import oracles
from .helpers import assert_equal, assert_same, gradients
from .strategies import Batch, Tokens, batches, noise, tokens

# How each reduces its tokens.
MODES = {
    "grpo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
    "dapo": "token-mean",
    "fipo": "token-mean",
    "sapo": "seq-mean-token-mean",
    "gpg": "token-mean",
    "cispo": "token-mean",
    "dis": "token-mean",
    "gspo": "seq-mean-token-mean",
    "luspo": "seq-mean-token-sum",
    "gmpo": "seq-mean-token-mean",
    "vespo": "token-mean",
    "topr": "seq-mean-token-sum",
    "dro": "seq-mean-token-sum",
}
NAMES = list(MODES)
PER_ROLLOUT = ("gspo", "luspo", "gmpo")  # advantages per rollout alone
every_recipe = pytest.mark.parametrize("name", NAMES)


def loss(name: str, batch: Tokens, **options: Any) -> Tensor:
    if name == "dr_grpo" and "denominator" not in options:
        options["max_length"] = 9
    return getattr(clipo_ops, f"{name}_loss")(*arguments(name, batch), **options)


def arguments(name: str, batch: Tokens) -> tuple[Tensor, ...]:
    return (batch.logprobs, batch.advantages, batch.mask) if name == "gpg" else batch


@every_recipe
@given(tokens())
def test_against_itself_a_policy_has_the_gradient_of_the_policy_gradient(name: str, batch: Tokens) -> None:
    """Old log-probabilities are a constant, also where they are the same tensor as the new ones."""
    _, grad = gradients(lambda x: loss(name, batch._replace(logprobs=x, old_logprobs=x), denominator=7), batch.logprobs)

    def policy_gradient(x: Tensor) -> Tensor:
        values = -batch.advantages.unsqueeze(1) * x
        return aggregate(values, batch.mask, mode=MODES[name], denominator=7)

    assert_same(grad, gradients(policy_gradient, batch.logprobs)[1])


@every_recipe
@given(tokens())
def test_no_gradient_reaches_old_log_probabilities_or_advantages(name: str, batch: Tokens) -> None:
    leaves = [batch.old_logprobs.requires_grad_(), batch.advantages.requires_grad_()]
    value = loss(name, batch._replace(logprobs=batch.logprobs.requires_grad_()))
    assert torch.autograd.grad(value, leaves, allow_unused=True) == (None, None)


# The others weigh by the ratio as a constant, and a weight's derivative shows in a finite difference.
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "sapo", "gpg", "gspo", "luspo", "gmpo", "dro"])
@pytest.mark.parametrize("distance", [1e-4, 1.0])
def test_first_and_second_derivatives_are_right(name: str, distance: float) -> None:
    batch = Tokens(-noise(0, 3, 4).abs(), torch.empty(0), noise(2, 3), noise(3, 3, 4) > -1)
    batch = batch._replace(old_logprobs=batch.logprobs - distance * noise(1, 3, 4))

    def value(x: Tensor) -> Tensor:
        return loss(name, batch._replace(logprobs=x)) + 0 * x.sum()

    point = (batch.logprobs.requires_grad_(),)
    assert torch.autograd.gradcheck(value, point, eps=1e-7, atol=1e-6)
    assert torch.autograd.gradgradcheck(value, point, eps=1e-7, atol=1e-6)


@every_recipe
@given(tokens())
def test_agrees_with_the_oracle(name: str, batch: Tokens) -> None:
    options = {"max_length": 9} if name == "dr_grpo" else {}
    oracle = getattr(oracles, f"{name}_loss")
    assert_same(loss(name, batch), oracle(*arguments(name, batch), **options))
    assert_same(loss(name, batch, denominator=7), oracle(*arguments(name, batch), denominator=7))


@every_recipe
@given(tokens(), st.integers(1, 4))
def test_parts_add_up_to_the_whole_in_value_and_gradient(name: str, batch: Tokens, cut: int) -> None:
    def parts(x: Tensor) -> Tensor:
        pieces = zip(*(tensor.tensor_split([cut]) for tensor in batch._replace(logprobs=x)), strict=True)
        return torch.stack([loss(name, Tokens(*piece), denominator=5) for piece in pieces]).sum()

    whole = gradients(lambda x: loss(name, batch._replace(logprobs=x), denominator=5), batch.logprobs)
    assert_same(gradients(parts, batch.logprobs), whole)


@every_recipe
@given(tokens(), st.sampled_from([torch.nan, torch.inf]))
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(name: str, batch: Tokens, rubbish: float) -> None:
    dirty = batch._replace(logprobs=torch.where(batch.mask, batch.logprobs, rubbish))
    results = [gradients(lambda x, b=b: loss(name, b._replace(logprobs=x)), b.logprobs) for b in (dirty, batch)]
    assert_equal(*results)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PER_ROLLOUT])
@given(tokens(), st.sampled_from([torch.nan, torch.inf]))
def test_advantages_under_the_mask_change_neither_value_nor_gradient(name: str, batch: Tokens, rubbish: float) -> None:
    clean = batch._replace(advantages=batch.advantages.unsqueeze(1).repeat(1, batch.mask.shape[1]))
    dirty = clean._replace(advantages=torch.where(batch.mask, clean.advantages, rubbish))
    results = [gradients(lambda x, b=b: loss(name, b._replace(logprobs=x)), b.logprobs) for b in (dirty, clean)]
    assert_equal(*results)


@every_recipe
@given(tokens())
def test_any_ratio_gives_a_finite_loss_and_gradient_in_float32(name: str, batch: Tokens) -> None:
    single = Tokens(*(x.float() if x.is_floating_point() else x for x in batch))
    results = gradients(lambda x: loss(name, single._replace(logprobs=x)), single.logprobs)
    assert all(result.isfinite().all() for result in results)


@given(tokens())
def test_gspo_is_the_clipped_surrogate_of_its_token_form(batch: Tokens) -> None:
    def composed(x: Tensor) -> Tensor:
        ratio = gspo_token_log_ratio(log_ratio(x, batch.old_logprobs, batch.mask), batch.mask)
        result = clipped_surrogate(ratio, batch.advantages, epsilon_low=3e-4, epsilon_high=4e-4)
        return aggregate(result.loss, batch.mask, mode="seq-mean-token-mean")

    recipe = gradients(lambda x: loss("gspo", batch._replace(logprobs=x)), batch.logprobs)
    value, grad = gradients(composed, batch.logprobs)
    assert_same(recipe[0], value)
    inside = (batch.logprobs - batch.old_logprobs).abs() <= 20  # beyond, `log_ratio` is constant
    assert_same(recipe[1][inside], grad[inside])


@given(batches())
def test_clipo_rewards_agree_with_the_oracle(batch: Batch) -> None:
    outcome = batch.success.double()
    expected = oracles.clipo_rewards(outcome, *batch, temperature=0.2)
    assert_same(clipo_rewards(outcome, *batch, objective=supcon_out, temperature=0.2), expected, atol=1e-8)


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if mode.startswith("seq-mean")])
def test_a_rollout_without_a_token_does_not_count_in_the_denominator(name: str) -> None:
    """As in verl; TRL divides by all rollouts."""
    mask = torch.tensor([[True, True], [False, False]])
    batch = Tokens(-torch.ones(2, 2), -torch.ones(2, 2), torch.ones(2), mask)
    assert_same(loss(name, batch), loss(name, Tokens(*(x[:1] for x in batch))))
