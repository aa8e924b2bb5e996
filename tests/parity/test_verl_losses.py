"""verl's policy losses and reductions: the same value and gradient, and where verl's break."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
from verl.workers.config import ActorConfig
from verl.workers.config.actor import PolicyLossConfig

from clipo_ops import (
    aggregate,
    aggregate_denominator,
    cispo_loss,
    clip_cov_surrogate,
    clip_fraction,
    clipped_surrogate,
    dapo_loss,
    dppo_surrogate,
    gmpo_loss,
    grpo_loss,
    gspo_loss,
    gspo_token_log_ratio,
    kl_cov_surrogate,
    kl_estimate,
    log_ratio,
    policy_gradient_surrogate,
    sapo_loss,
)

from ..ops import helpers
from ..ops.strategies import SEEDS, masks, noise
from .batches import Tokens, clipped_tokens, ours, tokens

Loss = Callable[[Tensor, Tokens], Tensor]
assert_same = partial(helpers.assert_same, rtol=1e-7, atol=1e-8)  # verl adds 1e-8 to denominators
BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


@cache
def config(**settings: Any) -> ActorConfig:
    policy_loss = {name: settings.pop(name) for name in list(settings) if name in PolicyLossConfig.__dataclass_fields__}
    common = {"strategy": "fsdp", "rollout_n": 2, "ppo_micro_batch_size_per_gpu": 1}
    return ActorConfig(**common, policy_loss=PolicyLossConfig(**policy_loss), **settings)


def theirs(name: str, batch: Tokens, mode: str = "token-mean", **settings: Any) -> tuple[Tensor, Tensor]:
    leaf = batch.logprobs.clone().requires_grad_()
    advantages = batch.advantages.unsqueeze(1).expand(leaf.shape).clone()
    mask = batch.mask.to(leaf.dtype)
    loss, _ = get_policy_loss_fn(name)(batch.old_logprobs, leaf, advantages, mask, mode, config(**settings))
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def recipe(loss: Callable[..., Tensor], **hyperparameters: Any) -> Loss:
    return lambda x, batch: loss(x, batch.old_logprobs, batch.advantages, batch.mask, **hyperparameters)


def weighted(surrogate: Callable[..., Any], *masked: str, **hyperparameters: Any) -> Loss:
    """A surrogate of log-probability and log-ratio, over all tokens."""

    def loss(x: Tensor, batch: Tokens) -> Tensor:
        ratio = log_ratio(x, batch.old_logprobs, batch.mask)
        more = [getattr(batch, name) for name in masked]
        return aggregate(surrogate(x, ratio, batch.advantages, *more, **hyperparameters).loss, batch.mask)

    return loss


def gspo_token(x: Tensor, batch: Tokens) -> Tensor:
    ratio = gspo_token_log_ratio(log_ratio(x, batch.old_logprobs, batch.mask), batch.mask)
    values = clipped_surrogate(ratio, batch.advantages, epsilon_low=0.2, epsilon_high=0.28).loss
    return aggregate(values, batch.mask, mode="seq-mean-token-mean")


CASES: dict[str, tuple[Loss, str, dict[str, Any]]] = {
    "dapo": (recipe(dapo_loss), "vanilla", {**BOUNDS, "clip_ratio_c": 1e9}),
    "dual clip": (
        lambda x, batch: aggregate(clipped_tokens(x, batch, dual_clip=1.5), batch.mask),
        "vanilla",
        {"clip_ratio_c": 1.5},
    ),
    "cispo": (recipe(cispo_loss, ratio_low=0.8, ratio_high=1.28), "cispo", BOUNDS),
    "sapo": (recipe(sapo_loss), "sapo", {}),
    "gspo": (recipe(gspo_loss, epsilon_low=0.2, epsilon_high=0.28), "gspo", {**BOUNDS, "mode": "seq-mean-token-mean"}),
    "gspo per token": (gspo_token, "gspo", {**BOUNDS, "mode": "seq-mean-token-mean"}),
    "gmpo": (recipe(gmpo_loss), "geo_mean", {"clip_ratio": 0.4, "clip_ratio_low": 0.4, "clip_ratio_high": 0.4}),
    "policy gradient": (
        lambda x, batch: aggregate(policy_gradient_surrogate(x, batch.advantages).loss, batch.mask),
        "gpg",
        {},
    ),
    "dppo, tv": (
        weighted(dppo_surrogate, threshold_low=0.05, threshold_high=0.1, ratio_high=3.0),
        "dppo_tv",
        {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1},
    ),
    "dppo, kl": (
        weighted(dppo_surrogate, divergence="kl", threshold_low=0.05, threshold_high=0.1, ratio_high=3.0),
        "dppo_kl",
        {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1},
    ),
    "clip-cov": (  # drops every token that may be drawn, so that the draw does not matter
        weighted(clip_cov_surrogate, "mask", fraction=1.0, covariance_low=0.1),
        "clip_cov",
        {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1},
    ),
    "kl-cov": (
        weighted(kl_cov_surrogate, "mask", fraction=0.3, kl_weight=0.5),
        "kl_cov",
        {"kl_cov_ratio": 0.3, "ppo_kl_coef": 0.5},
    ),
}


@pytest.mark.parametrize("name", CASES)
@given(batch=tokens())
def test_has_the_same_value_and_gradient(name: str, batch: Tokens) -> None:
    assume(name != "kl-cov" or batch.advantages.any())  # of equal covariances, verl takes any
    loss, peer, settings = CASES[name]
    assert_same(ours(loss, batch), theirs(peer, batch, **settings))


@pytest.mark.parametrize("mode", MODES)
@given(mask=masks(), seed=SEEDS)
def test_reductions_are_the_same(mode: str, mask: Tensor, seed: int) -> None:
    """Also with empty rollouts, which neither counts; given a token at all, without which verl's is NaN."""
    values = noise(seed, *mask.shape)
    norm = mask.any(1).sum().double() * 9 if mode == "seq-mean-token-sum-norm" else None
    expected = agg_loss(values, mask.double(), mode, loss_scale_factor=9)
    if mask.any():
        assert_same(aggregate(values, mask, mode=mode, denominator=norm), expected)
    else:
        assert expected.isnan()
        assert aggregate(values, mask, mode=mode, denominator=norm) == 0


@pytest.mark.parametrize("mode", MODES[:3])
@given(mask=masks(), seed=SEEDS)
def test_micro_batches_with_a_global_denominator_are_the_same(mode: str, mask: Tensor, seed: int) -> None:
    values, denominator = noise(seed, *mask.shape), aggregate_denominator(mask, mode=mode).clamp(min=1)
    name = "batch_num_tokens" if mode == "token-mean" else "global_batch_size"
    for rows in (slice(0, 1), slice(1, None)):
        expected = agg_loss(values[rows], mask[rows].double(), mode, **{name: denominator})
        if mask[rows].shape[0]:
            assert_same(aggregate(values[rows], mask[rows], mode=mode, denominator=denominator), expected)


@pytest.mark.parametrize("estimator", ["k1", "k1+", "k2", "k3", "k3+", "abs"])
@given(batch=tokens())
def test_kl_estimators_are_the_same_up_to_2_nats(estimator: str, batch: Tokens) -> None:
    batch = batch._replace(old_logprobs=batch.logprobs - (batch.logprobs - batch.old_logprobs).clamp(-2, 2))
    peer = ours(lambda x, b: kl_penalty(x, b.old_logprobs, estimator).sum(), batch)
    assert_same(ours(lambda x, b: kl_estimate(x, b.old_logprobs, estimator=estimator).sum(), batch), peer)


@given(batch=tokens())
def test_the_share_of_clipped_tokens_is_the_same(batch: Tokens) -> None:
    advantages = batch.advantages.unsqueeze(1).expand(batch.mask.shape)
    given = (batch.old_logprobs, batch.logprobs, advantages, batch.mask.double(), "token-mean", config())
    metrics = get_policy_loss_fn("vanilla")(*given)[1]
    clipped = clipped_surrogate(log_ratio(batch.logprobs, batch.old_logprobs, batch.mask), batch.advantages).clipped
    assert_same(clip_fraction(clipped, batch.mask).item(), metrics["actor/pg_clipfrac"], rtol=1e-6)


# --- where verl's numbers are wrong


def test_k3_is_cut_at_10_in_verl() -> None:
    """At 5 nats it is 142.4, and verl has no gradient left to pull the policy back."""
    logprobs = torch.full((1, 1), -6.0, dtype=torch.float64)
    batch = Tokens(logprobs, logprobs + 5, torch.ones(1), logprobs < 0, -logprobs)
    cut = ours(lambda x, b: kl_penalty(x, b.old_logprobs, "k3").sum(), batch)
    assert_same(cut, (torch.tensor(10.0).double(), torch.zeros(1, 1).double()))
    exact = torch.tensor(5.0).double().exp()
    mine = ours(lambda x, b: kl_estimate(x, b.old_logprobs).sum(), batch)
    assert_same(mine, (exact - 6, (1 - exact).view(1, 1)))


@given(batch=tokens())
def test_nan_under_a_false_mask_reaches_verls_sequence_means_and_not_ours(batch: Tokens) -> None:
    def pad(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, 1), value=torch.nan)

    mask = torch.nn.functional.pad(batch.mask, (0, 1))
    padded = batch._replace(logprobs=pad(batch.logprobs), old_logprobs=pad(batch.old_logprobs), mask=mask)
    assert theirs("vanilla", padded, mode="seq-mean-token-mean")[0].isnan()
    value, gradient = ours(recipe(grpo_loss), padded)
    exact, without = ours(recipe(grpo_loss), batch)
    assert_same((value, gradient), (exact, torch.nn.functional.pad(without, (0, 1))))


def test_a_log_ratio_of_100_breaks_kl_cov_in_verl() -> None:
    logprobs = torch.full((1, 2), -1.0)
    batch = Tokens(logprobs, logprobs - 100, torch.zeros(1), logprobs < 0, -logprobs)
    assert theirs("kl_cov", batch)[0].isnan()
    value, gradient = ours(weighted(kl_cov_surrogate, "mask", kl_weight=0.1), batch)
    assert_same(value, torch.tensor(1.0))  # half of .1 * 20 nats
    assert gradient.isfinite().all()
