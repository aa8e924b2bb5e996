"""Objectives: ours on rows of logits, the sampled positive, and a user's own within `contrastive_loss`."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import dcl, infonce, sincere, supcon_out

from . import oracles
from .contrastive import EXACT, every_objective, every_scope, losses, losses_and_gradient
from .helpers import HALF, assert_rounded, assert_same
from .strategies import SEEDS, TEMPERATURES, Batch, anchored_batches, batches, noise


@every_objective
@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(seed=SEEDS)
def test_an_objective_on_half_precision_logits_is_rounded_once(objective: Any, dtype: torch.dtype, seed: int) -> None:
    logits = (noise(seed, 1, 6) * 5).to(dtype)
    positives, candidates = torch.tensor([[True, True, True, False, False, False]]), torch.arange(6).view(1, 6) < 5
    row = [x[0].tolist() for x in (logits, positives, candidates)]
    exact = oracles.tensor([getattr(oracles, objective.__name__)(*row)])
    assert_rounded(objective(logits, positives, candidates), exact, dtype)


@given(seed=SEEDS, gain=st.floats(0, 20))
def test_dcl_is_below_sincere_and_falls_without_end_as_a_positive_comes_closer(seed: int, gain: float) -> None:
    logits, candidates = noise(seed, 3, 6), torch.ones(3, 6, dtype=torch.bool)
    positives = torch.arange(6) < torch.tensor([[1], [2], [5]])
    lower = dcl(logits, positives, candidates)
    assert (lower <= sincere(logits, positives, candidates) + 1e-9).all()
    closer = torch.where(positives, logits + gain, logits)
    assert_same(dcl(closer, positives, candidates), lower - gain)


# --- the sampled positive


@given(batch=batches())
def test_infonce_gives_one_of_its_positives_losses(batch: Batch) -> None:
    possible = oracles.contrastive_rows(*batch, oracles.infonce, other=[0.0])
    for actual, options in zip(losses(batch, infonce).tolist(), possible, strict=True):
        assert any(actual == pytest.approx(option) for option in options)


@given(seed=SEEDS, temperature=TEMPERATURES)
def test_supcon_out_is_the_expectation_of_infonce(seed: int, temperature: float) -> None:
    logits, candidates = noise(seed, 4, 6) / temperature, torch.ones(4, 6, dtype=torch.bool)
    positives = torch.arange(6) < torch.tensor([[1], [2], [4], [5]])
    draws = torch.stack([infonce(logits, (torch.arange(6) == p).expand(4, 6), candidates) for p in range(6)], 1)
    expectation = torch.where(positives, draws, 0).sum(1) / positives.sum(1)
    assert_same(supcon_out(logits, positives, candidates), expectation)


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16], ids=str)
def test_positives_are_drawn_uniformly(default: torch.dtype) -> None:
    """With a default dtype of 8 bits, draws that tie would favour the first positives."""
    logits = torch.arange(40.0).expand(100000, 40)
    positives = torch.arange(40).expand(100000, 40) % 4 != 3
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        drawn = infonce(logits, positives, positives, generator=torch.Generator().manual_seed(1))
    finally:
        torch.set_default_dtype(before)
    places = (logits[0, positives[0]].double().logsumexp(0) - drawn.double()).round().long()
    counts = torch.bincount(places, minlength=40)[positives[0]].double()
    chi_square = (counts - 100000 / 30).square().sum() / (100000 / 30)
    assert counts.sum() == 100000
    assert chi_square < 29 + 5 * 58**0.5  # mean and five deviations of chi-square with 29 degrees of freedom


def many_positives() -> Batch:
    return Batch(noise(0, 32, 4), torch.arange(32) % 8 < 6, torch.arange(32) // 8)


def sampled(generator: torch.Generator) -> Tensor:
    return losses(many_positives(), partial(infonce, generator=generator))


def test_a_seed_fixes_the_draws_and_a_saved_state_continues_them() -> None:
    generator = torch.Generator().manual_seed(3)
    first = sampled(generator)
    state = generator.get_state()
    second = sampled(generator)
    assert not torch.equal(first, second)
    assert torch.equal(sampled(torch.Generator().manual_seed(3)), first)
    assert torch.equal(sampled(generator.set_state(state)), second)


def test_a_generator_of_ones_own_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    sampled(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mean_of_many_draws_is_supcon_out() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([sampled(generator) for _ in range(400)])
    bound = 5 * draws.std(0) / 20
    assert ((draws.mean(0) - losses(many_positives())).abs() <= bound + 1e-9).all()


# --- objectives of one's own


def mean_logit(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """0 / 0 in a row without a positive."""
    return -(logits * positives).sum(-1) / positives.sum(-1)


def without_positives(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """The logarithm of 0 in a row without a negative."""
    negatives = torch.where(candidates & ~positives, logits, -torch.inf)
    return negatives.logsumexp(-1) + mean_logit(logits, positives, candidates)


def length(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """An infinite slope in a row of zeros."""
    return logits.square().sum(-1).sqrt()


@given(batch=anchored_batches())
def test_an_objective_of_ones_own_works(batch: Batch) -> None:
    def row(logits: Any, positives: Any, candidates: Any) -> float:
        negatives = [logit for logit, positive in zip(logits, positives, strict=True) if not positive]
        return oracles.log_sum_exp(negatives) - oracles.mean(oracles.chosen(logits, positives))

    assert_same(losses(batch, without_positives), oracles.contrastive_loss(*batch, objective=row), atol=1e-9)


@pytest.mark.parametrize("objective", [mean_logit, without_positives, length], ids=lambda f: f.__name__)
@given(batch=anchored_batches())
def test_rows_that_are_no_anchor_cannot_break_an_objective(objective: Any, batch: Batch) -> None:
    value, grad = losses_and_gradient(batch, objective)
    assert value.isfinite().all()
    assert grad.isfinite().all()


@every_scope
@given(batch=batches())
def test_what_an_objective_is_given(scope: str, batch: Batch) -> None:
    seen: list[Tensor] = []

    def spy(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
        seen.extend((logits, positives, candidates))
        return logits.sum(-1)

    losses(batch._replace(embeddings=batch.embeddings.bfloat16()), spy, scope=scope)
    logits, positives, candidates = seen
    idle = positives.all(-1) & candidates.all(-1)
    assert logits.dtype == torch.float32
    assert positives.any(-1).all()
    assert not (positives & ~candidates).any()
    assert (logits[idle] == 0).all()
    assert (~idle).sum() == oracles.contrastive_anchors(batch.success, batch.ids, scope=scope).sum()
    assert not (candidates & ~idle.unsqueeze(-1)).diagonal(dim1=-2, dim2=-1).any()


@pytest.mark.parametrize("objective", [infonce, *EXACT])
@given(others=st.lists(st.booleans(), min_size=1, max_size=6))
def test_logits_of_no_candidate_may_be_anything(objective: Any, others: list[bool]) -> None:
    positives = torch.tensor([True, *others])
    logits = -torch.rand(len(positives)) * 30
    hidden = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf])
    extended = torch.cat([logits, hidden]).requires_grad_()
    shown = torch.cat([torch.ones_like(positives), torch.zeros(4, dtype=torch.bool)])
    chosen = torch.cat([positives, torch.zeros(4, dtype=torch.bool)])

    def drawn(*row: Tensor) -> Tensor:
        torch.manual_seed(0)
        loss: Tensor = objective(*row)
        return loss

    loss = drawn(extended, chosen, shown)
    torch.testing.assert_close(loss, drawn(logits, positives, torch.ones_like(positives)))
    (grad,) = torch.autograd.grad(loss, extended)
    assert (grad[len(logits) :] == 0).all()
    assert grad.isfinite().all()
