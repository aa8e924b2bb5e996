"""Clip-Cov and KL-Cov: which tokens, how many, and what becomes of them."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import clip_cov_surrogate, clipped_surrogate, kl_cov_surrogate

from . import oracles
from .helpers import assert_equal, assert_same
from .strategies import SEEDS, masks, noise

FRACTIONS = st.sampled_from([2e-4, 0.1, 0.3, 0.5, 1.0])
Arguments = tuple[Tensor, Tensor, Tensor, Tensor]


@st.composite
def batches(draw: st.DrawFn) -> Arguments:
    """Advantages per token, so that no covariances tie; two tokens always do."""
    mask = draw(masks(max_tokens=8))
    assume(mask.sum() != 2)
    seed = draw(SEEDS)
    return -noise(seed, *mask.shape).abs(), noise(seed + 1, *mask.shape), noise(seed + 2, *mask.shape), mask


@given(batches(), FRACTIONS, st.sampled_from([0.0, 1.0, 5.0]))
def test_kl_cov_agrees_with_the_oracle(batch: Arguments, fraction: float, weight: float) -> None:
    loss = kl_cov_surrogate(*batch, fraction=fraction, kl_weight=weight).loss
    assert_same(loss, oracles.kl_cov_surrogate(*batch, fraction=fraction, kl_weight=weight))


@given(batches(), st.sampled_from([(-0.5, 0.5), (0.0, 5.0), (0.2, 0.4)]))
def test_clip_cov_agrees_with_the_oracle_where_all_are_drawn(batch: Arguments, bounds: tuple[float, float]) -> None:
    options = {"covariance_low": bounds[0], "covariance_high": bounds[1]}
    loss = clip_cov_surrogate(*batch, fraction=1, **options).loss
    assert_same(loss, oracles.clip_cov_surrogate(*batch, **options))


@given(batches(), FRACTIONS, SEEDS)
def test_clip_cov_drops_so_many_tokens_and_only_those_that_may_be(batch: Arguments, fraction: float, seed: int) -> None:
    bounds = {"covariance_low": -0.5, "covariance_high": 2.0}
    plain = clipped_surrogate(batch[1], batch[2])
    eligible = clip_cov_surrogate(*batch, fraction=1, **bounds).clipped & plain.clipped.logical_not()
    generator = torch.Generator().manual_seed(seed)
    result = clip_cov_surrogate(*batch, fraction=fraction, generator=generator, **bounds)
    dropped = result.clipped & plain.clipped.logical_not()
    assert not (dropped & eligible.logical_not()).any()
    assert dropped.sum() == min(int(eligible.sum()), oracles.count_of(batch[3], fraction))
    assert_equal(result.loss, torch.where(dropped, 0, plain.loss))


def test_clip_cov_draws_every_token_alike_and_by_the_generator() -> None:
    logprobs, mask = -noise(0, 1, 8).abs(), torch.ones(1, 8, dtype=torch.bool)
    arguments = logprobs, torch.zeros(1, 8), noise(1, 1, 8), mask
    bounds = {"fraction": 0.25, "covariance_low": -9.0, "covariance_high": 9.0}
    generator = torch.Generator().manual_seed(0)
    draws = [clip_cov_surrogate(*arguments, generator=generator, **bounds).clipped for _ in range(800)]
    counts = torch.cat(draws).sum(0)
    assert counts.sum() == 1600
    assert ((counts > 140) & (counts < 260)).all()
    generator.manual_seed(0)
    assert torch.equal(clip_cov_surrogate(*arguments, generator=generator, **bounds).clipped, draws[0])


@given(batches(), SEEDS)
def test_clip_cov_drops_the_same_tokens_whatever_the_strides(batch: Arguments, seed: int) -> None:
    def clipped(*arguments: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        bounds = {"fraction": 0.3, "covariance_low": -9.0, "covariance_high": 9.0}
        return clip_cov_surrogate(*arguments, generator=generator, **bounds).clipped

    assert torch.equal(clipped(*(x.mT.contiguous().mT for x in batch)), clipped(*batch))


@pytest.mark.parametrize("fraction", [2e-4, 0.5])
def test_of_equal_covariances_kl_cov_takes_the_first_and_no_more(fraction: float) -> None:
    d = torch.full((2, 4), 0.5)
    mask = torch.ones(2, 4, dtype=torch.bool)
    loss = kl_cov_surrogate(torch.full((2, 4), -1.0), d, torch.zeros(2), mask, fraction=fraction).loss
    count = 1 if fraction < 0.1 else 4
    assert loss.flatten().tolist() == [0.5] * count + [0.0] * (8 - count)


@given(batches(), FRACTIONS)
def test_padding_changes_nothing(batch: Arguments, fraction: float) -> None:
    logprobs, d, advantages, mask = batch
    before, after = 2, 1
    padded = [torch.nn.functional.pad(x, (before, after)) for x in batch]
    wide = kl_cov_surrogate(*padded, fraction=fraction).loss[:, before : before + mask.shape[1]]
    assert_same(wide[mask], kl_cov_surrogate(logprobs, d, advantages, mask, fraction=fraction).loss[mask])
