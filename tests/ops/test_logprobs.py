"""Log-probabilities, entropies and KL estimates: exact in float32 whatever the logits."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import aggregate, kl_estimate, token_entropy, token_logprobs, unbiased_kl_estimate

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, TEMPERATURES, Tokens, noise, tokens

SIZES = st.sampled_from([0.0, 1.0, 50.0, 1e4])  # of the logits
every_estimator = pytest.mark.parametrize("estimator", ["k1", "k1+", "k2", "k3", "k3+", "abs"])

# torch itself scripts its rules for forward mode at their first use.
forward_ad = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def vocabulary(seed: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of 2 rollouts, 3 tokens and 5 words, and tokens."""
    return noise(seed, 2, 3, 5) * size, noise(seed, 2, 3, 5).argmax(-1)


@given(SEEDS, SIZES, TEMPERATURES)
def test_log_probabilities_agree_with_the_oracle(seed: int, size: float, temperature: float) -> None:
    arguments = vocabulary(seed, size)
    expected = oracles.token_logprobs(*arguments, temperature=temperature)
    assert_same(token_logprobs(*arguments, temperature=temperature), expected, atol=1e-9)


@given(SEEDS, SIZES, TEMPERATURES)
def test_entropies_agree_with_the_oracle(seed: int, size: float, temperature: float) -> None:
    logits, _ = vocabulary(seed, size)
    expected = oracles.token_entropy(logits, temperature=temperature)
    assert_same(token_entropy(logits, temperature=temperature), expected, atol=1e-9)


@every_estimator
@given(tokens())
def test_kl_estimates_agree_with_the_oracle(estimator: str, batch: Tokens) -> None:
    arguments = batch.logprobs, batch.old_logprobs
    assert_same(kl_estimate(*arguments, estimator=estimator), oracles.kl_estimate(*arguments, estimator=estimator))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(SEEDS, st.sampled_from([1.0, 20.0]))
def test_half_precision_is_rounded_once(dtype: torch.dtype, seed: int, size: float) -> None:
    logits, token_ids = vocabulary(seed, size)
    logits = logits.to(dtype)
    slack = 1e-5
    assert_rounded(token_logprobs(logits, token_ids), oracles.token_logprobs(logits, token_ids), dtype, slack=slack)
    assert_rounded(token_entropy(logits), oracles.token_entropy(logits), dtype, slack=slack)


@every_estimator
@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(SEEDS)
def test_a_kl_estimate_in_half_precision_is_rounded_once(dtype: torch.dtype, estimator: str, seed: int) -> None:
    new, ref = noise(seed, 2, 3).to(dtype), noise(seed + 1, 2, 3).to(dtype)
    exact = oracles.kl_estimate(new, ref, estimator=estimator)
    assert_rounded(kl_estimate(new, ref, estimator=estimator), exact, dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_token_ids_are_any_integers(dtype: torch.dtype) -> None:
    logits, token_ids = vocabulary(0)
    assert_same(token_logprobs(logits, token_ids.to(dtype)), token_logprobs(logits, token_ids))


@given(SEEDS, SIZES)
def test_probabilities_add_up_to_one(seed: int, size: float) -> None:
    logits, _ = vocabulary(seed, size)
    every_word = [token_logprobs(logits, torch.full((2, 3), word)) for word in range(5)]
    assert_same(torch.stack(every_word).exp().sum(0), torch.ones(2, 3).double())


@given(SEEDS, st.floats(-1e3, 1e3))
def test_a_shift_of_the_logits_changes_nothing(seed: int, shift: float) -> None:
    logits, token_ids = vocabulary(seed)
    assert_same(token_logprobs(logits + shift, token_ids), token_logprobs(logits, token_ids))
    assert_same(token_entropy(logits + shift), token_entropy(logits))


@given(SEEDS, SIZES, TEMPERATURES)
def test_entropy_lies_between_zero_and_that_of_the_uniform_policy(seed: int, size: float, temperature: float) -> None:
    entropy = token_entropy(vocabulary(seed, size)[0], temperature=temperature)
    assert ((entropy >= 0) & (entropy <= math.log(5) + 1e-12)).all()


@given(SEEDS, SIZES)
def test_a_word_that_cannot_occur_counts_for_nothing_in_value_and_gradient(seed: int, size: float) -> None:
    logits, token_ids = vocabulary(seed, size)
    wider = torch.cat([logits, torch.full((2, 3, 1), -torch.inf)], 2)
    for function in (token_entropy, lambda x: token_logprobs(x, token_ids)):
        value, grad = gradients(function, wider)
        expected = gradients(function, logits)
        assert_same((value, grad[..., :5]), expected)
        assert grad[..., 5].count_nonzero() == 0


def test_log_probabilities_and_entropies_pass_gradcheck() -> None:
    logits, token_ids = vocabulary(0)
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, token_ids, temperature=0.7), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: token_entropy(x, temperature=0.7), logits.requires_grad_())


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "abs"])
def test_a_kl_estimate_passes_gradcheck(estimator: str) -> None:
    pair = noise(0, 2, 3).requires_grad_(), noise(1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: kl_estimate(*x, estimator=estimator), pair)


@every_estimator
@given(tokens())
def test_a_kl_estimate_has_a_finite_value_and_gradient_at_any_difference(estimator: str, batch: Tokens) -> None:
    arguments = batch.logprobs.float(), batch.old_logprobs.float()
    results = gradients(lambda *x: kl_estimate(*x, estimator=estimator), *arguments)
    assert all(result.isfinite().all() for result in results)


@every_estimator
@given(tokens())
def test_what_is_under_the_mask_of_a_kl_loss_changes_neither_value_nor_gradient(estimator: str, batch: Tokens) -> None:
    def loss(*pair: Tensor) -> Tensor:
        return aggregate(kl_estimate(*pair, estimator=estimator), batch.mask)

    clean = batch.logprobs, batch.old_logprobs
    dirty = [torch.where(batch.mask, x, torch.nan) for x in clean]
    assert_equal(gradients(loss, *dirty), gradients(loss, *clean))


@every_estimator
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("nats", [-90.0, -19.0, -11.0, 19.0, -torch.inf, torch.inf])
def test_a_kl_estimate_is_finite_in_half_precision_too(estimator: str, dtype: torch.dtype, nats: float) -> None:
    pair = torch.tensor([[min(nats, 0.0)]], dtype=dtype), torch.tensor([[min(-nats, 0.0)]], dtype=dtype)
    results = gradients(lambda *x: kl_estimate(*x, estimator=estimator), *pair)
    assert all(result.isfinite().all() for result in results)


@every_estimator
def test_a_token_that_neither_policy_can_say_has_no_divergence_and_no_gradient(estimator: str) -> None:
    impossible = torch.tensor([[-torch.inf]])
    results = gradients(lambda *x: kl_estimate(*x, estimator=estimator), impossible, impossible)
    assert all(result.item() == 0 for result in results)


@given(SEEDS, st.sampled_from([1e-6, 1e-4, 1.0, 30.0]))
def test_k3_is_at_least_zero_also_where_policies_hardly_differ(seed: int, size: float) -> None:
    difference = (noise(seed, 4, 256) * size).float()
    assert (kl_estimate(difference, torch.zeros(4, 256)) >= 0).all()


@every_estimator
@given(tokens())
def test_the_same_policy_has_no_divergence(estimator: str, batch: Tokens) -> None:
    assert kl_estimate(batch.logprobs, batch.logprobs, estimator=estimator).count_nonzero() == 0


def expectation(values: Tensor, logprobs: Tensor) -> Tensor:
    return (logprobs.detach().exp() * values).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@given(SEEDS)
def test_k1_and_k3_are_unbiased(estimator: str, seed: int) -> None:
    policy, reference = noise(seed, 1, 6).log_softmax(1), noise(seed + 1, 1, 6).log_softmax(1)
    divergence = torch.nn.functional.kl_div(reference, policy, log_target=True, reduction="sum")
    assert_same(expectation(kl_estimate(policy, reference, estimator=estimator), policy), divergence)


def divergence(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum()


# What is differentiated, in expectation, if the estimate is a loss.
DIVERGENCES: dict[str, Any] = {
    "k1": lambda policy, reference: policy.sum() * 0,
    "k1+": divergence,
    "k2": divergence,
    "k3": lambda policy, reference: divergence(reference, policy),
    "k3+": divergence,
    "abs": lambda policy, reference: (policy.exp() - reference.exp()).abs().sum(),  # twice the total variation
}


@pytest.mark.parametrize("estimator", DIVERGENCES)
@given(SEEDS)
def test_the_expected_gradient_of_an_estimate_in_the_loss(estimator: str, seed: int) -> None:
    reference = noise(seed + 1, 1, 6).log_softmax(1)

    def estimated(logits: Tensor) -> Tensor:
        policy = logits.log_softmax(1)
        return expectation(kl_estimate(policy, reference, estimator=estimator), policy)

    def exact(logits: Tensor) -> Tensor:
        return DIVERGENCES[estimator](logits.log_softmax(1), reference)

    assert_same(gradients(estimated, noise(seed, 1, 6))[1], gradients(exact, noise(seed, 1, 6))[1])


@pytest.mark.parametrize("estimator", DIVERGENCES)
def test_only_k1_in_the_reward_gives_the_gradient_of_the_divergence(estimator: str) -> None:
    reference, logits = noise(1, 1, 6).log_softmax(1), noise(0, 1, 6)

    def penalised(logits: Tensor) -> Tensor:
        policy = logits.log_softmax(1)
        reward = kl_estimate(policy, reference, estimator=estimator).detach()
        return expectation(reward * policy, policy)

    actual = gradients(penalised, logits)[1]
    exact = gradients(lambda x: divergence(x.log_softmax(1), reference), logits)[1]
    assert torch.allclose(actual, exact) is (estimator in ("k1", "k1+"))


@given(SEEDS)
def test_the_unbiased_estimate_has_the_value_and_gradient_of_the_divergence_off_policy_and_on(seed: int) -> None:
    reference = noise(seed + 1, 1, 6).log_softmax(1)
    for old in (noise(seed, 1, 6).log_softmax(1), noise(seed + 2, 1, 6).log_softmax(1)):

        def estimated(logits: Tensor, old: Tensor = old) -> Tensor:
            policy = logits.log_softmax(1)
            return expectation(unbiased_kl_estimate(policy, reference, policy - old), old)

        actual = gradients(estimated, noise(seed, 1, 6))
        assert_same(actual, gradients(lambda x: divergence(x.log_softmax(1), reference), noise(seed, 1, 6)))


@given(tokens())
def test_the_unbiased_estimate_agrees_with_the_oracle_and_is_finite(batch: Tokens) -> None:
    arguments = batch.logprobs, batch.old_logprobs, (batch.logprobs - batch.old_logprobs) / 2
    assert_same(unbiased_kl_estimate(*arguments), oracles.unbiased_kl_estimate(*arguments))
    extreme = [x.float() for x in (batch.logprobs, batch.old_logprobs, batch.logprobs - batch.old_logprobs)]
    assert all(result.isfinite().all() for result in gradients(unbiased_kl_estimate, *extreme))
    dirty = [torch.where(batch.mask, x, torch.nan) for x in extreme]
    loss = lambda *x: aggregate(unbiased_kl_estimate(*x), batch.mask)  # noqa: E731
    assert_equal(gradients(loss, *dirty), gradients(loss, *extreme))


def test_the_unbiased_estimate_passes_gradcheck() -> None:
    inputs = [noise(seed, 2, 3).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(unbiased_kl_estimate, inputs)
    assert torch.autograd.gradgradcheck(unbiased_kl_estimate, inputs)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@given(tokens())
def test_a_plus_is_the_value_of_the_one_with_the_gradient_of_k2(estimator: str, batch: Tokens) -> None:
    def results(estimator: str) -> tuple[Tensor, ...]:
        return gradients(lambda *x: kl_estimate(*x, estimator=estimator), batch.logprobs, batch.old_logprobs)

    assert_same(results(f"{estimator}+"), (results(estimator)[0], *results("k2")[1:]))


@forward_ad
@every_estimator
def test_forward_mode_and_second_derivatives_are_those_of_reverse_mode(estimator: str) -> None:
    new, old = noise(0, 2, 3), noise(1, 2, 3)
    function = lambda x: kl_estimate(x, old, estimator=estimator)  # noqa: E731
    assert_same(torch.func.jacfwd(function)(new), torch.func.jacrev(function)(new))
    curved = torch.func.hessian(lambda x: function(x).sum())(new).diagonal().sum() != 0
    assert bool(curved) is (estimator not in ("k1", "abs"))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 1.0])
@given(SEEDS)
def test_half_precision_has_finite_results_at_any_temperature(
    dtype: torch.dtype, temperature: float, seed: int
) -> None:
    logits, token_ids = vocabulary(seed, 50.0)
    token_ids = torch.where(token_ids == 4, 0, token_ids)
    logits[..., 4] = -torch.inf
    for function in (
        lambda x: token_logprobs(x, token_ids, temperature=temperature),
        lambda x: token_entropy(x, temperature=temperature),
    ):
        assert all(result.isfinite().all() for result in gradients(function, logits.to(dtype)))


@pytest.mark.parametrize("function", [token_entropy, lambda x: token_logprobs(x, torch.zeros(1, 1).long())])
def test_huge_logits_have_a_finite_value_and_gradient(function: Any) -> None:
    for result in gradients(function, torch.tensor([[[1e30, -1e30, 0.0]]])):
        assert result.isfinite().all()
