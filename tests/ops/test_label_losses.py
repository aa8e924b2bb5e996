"""Losses that read verdicts as labels: their formulas, who gets a gradient, and how large it may be."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from clipo_ops import GroupLayout
from clipo_ops.experimental import conspo_loss, real_loss

from . import oracles
from .helpers import assert_equal, assert_same, gradients
from .strategies import SEEDS, TEMPERATURES, noise

MARGINS = st.sampled_from([0.0, 0.1, 2.0])


class Judged(NamedTuple):
    logprobs: Tensor
    success: Tensor
    ids: Tensor
    mask: Tensor


@st.composite
def judged(draw: st.DrawFn) -> Judged:
    """Groups of any sizes and verdicts; responses with holes, and without a token."""
    count, length = draw(st.integers(1, 9)), draw(st.integers(1, 4))

    def booleans(size: int) -> Tensor:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))

    ids = torch.tensor(draw(st.lists(st.sampled_from([-3, 0, 7]), min_size=count, max_size=count)))
    mask = booleans(count * length).view(count, length)
    return Judged(-noise(draw(SEEDS), count, length).abs(), booleans(count), ids, mask)


def mixed_groups(batch: Judged) -> int:
    some = batch.mask.any(1)
    return sum(
        bool((batch.success & some & (batch.ids == g)).any() and (~batch.success & some & (batch.ids == g)).any())
        for g in batch.ids.unique()
    )


@given(judged(), SEEDS, st.sampled_from([0.05, 0.5, 3.0]), st.sampled_from([None, 7.0, torch.tensor(3.0)]))
def test_real_agrees_with_the_oracle(
    batch: Judged, seed: int, temperature: float, denominator: float | Tensor | None
) -> None:
    old = -noise(seed, *batch.mask.shape).abs()
    options = {"temperature": temperature, "denominator": denominator}
    expected = oracles.real_loss(batch.logprobs, old, *batch[1:], **options)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(real_loss(batch.logprobs, old, batch.success, groups, batch.mask, **options), expected)


@given(judged(), TEMPERATURES, MARGINS)
def test_conspo_agrees_with_the_oracle(batch: Judged, temperature: float, margin: float) -> None:
    options = {"temperature": max(temperature, 0.05), "margin": margin}
    expected = oracles.conspo_loss(*batch, **options)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(conspo_loss(batch.logprobs, batch.success, groups, batch.mask, **options), expected)


@given(judged(), SEEDS)
def test_real_of_one_correct_and_one_incorrect_rollout_is_cross_entropy_of_two_logits(batch: Judged, seed: int) -> None:
    new, old = noise(seed, 2, 1), noise(seed + 1, 2, 1)
    success, groups, mask = torch.tensor([True, False]), torch.zeros(2, dtype=torch.long), torch.ones(2, 1).bool()
    logits = (new - old).flatten() / 0.5
    expected = binary_cross_entropy_with_logits(logits, success.double(), reduction="sum")
    assert_same(real_loss(new, old, success, groups, mask), expected)


@given(st.integers(1, 5), SEEDS, TEMPERATURES, MARGINS)
def test_conspo_is_cross_entropy_of_a_correct_rollout_among_the_incorrect(
    incorrect: int, seed: int, temperature: float, margin: float
) -> None:
    scores = noise(seed, incorrect + 1)
    logits = (scores - margin * (torch.arange(incorrect + 1) == 0).double()) / temperature
    success, groups = torch.arange(incorrect + 1) == 0, torch.zeros(incorrect + 1, dtype=torch.long)
    mask = torch.ones(incorrect + 1, 1, dtype=torch.bool)
    losses = conspo_loss(scores.unsqueeze(1), success, groups, mask, temperature=temperature, margin=margin)
    assert_same(losses[0], cross_entropy(logits, torch.tensor(0)))
    assert not losses[1:].any()


@given(judged())
def test_where_old_and_new_are_one_tensor_every_class_shares_its_gradient(batch: Judged) -> None:
    """A score of 0 is as far from the decision as the anchor: 1 / (tau (1 + n)) for each of n rollouts."""
    mask = torch.ones_like(batch.mask[:, :1])
    logprobs = batch.logprobs[:, :1].clone().requires_grad_()
    loss = real_loss(logprobs, logprobs, batch.success, batch.ids, mask, denominator=1.0)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    for i, own in enumerate(batch.ids):
        same = (batch.ids == own) & (batch.success == batch.success[i])
        is_mixed = bool(((batch.ids == own) & (batch.success != batch.success[i])).any())
        sign = -1.0 if batch.success[i] else 1.0
        assert_same(gradient[i, 0].item(), sign * is_mixed / (0.5 * (1 + int(same.sum()))))


@given(judged(), SEEDS, st.sampled_from([0.05, 0.5, 3.0]))
def test_no_rollout_of_real_has_a_gradient_beyond_the_inverse_temperature(
    batch: Judged, seed: int, temperature: float
) -> None:
    old = 8 * noise(seed, *batch.mask.shape)
    _, gradient = gradients(
        lambda x: real_loss(x, old, *batch[1:], temperature=temperature, denominator=1.0), batch.logprobs
    )
    per_score = gradient.sum(1)  # each token has 1 / length of its score's
    assert bool((per_score.abs() <= 1 / temperature + 1e-9).all())
    assert bool((per_score[batch.success] <= 0).all() and (per_score[~batch.success] >= 0).all())


@given(judged(), SEEDS)
def test_the_parts_of_a_batch_add_up(batch: Judged, seed: int) -> None:
    old = -noise(seed, *batch.mask.shape).abs()
    groups = batch.ids.unique()
    whole = real_loss(batch.logprobs, old, *batch[1:])
    parts = [
        real_loss(*(x[batch.ids == g] for x in (batch.logprobs, old, *batch[1:])), denominator=float(len(groups)))
        for g in groups
    ]
    assert_same(torch.stack(parts).sum(), whole)


@given(judged(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_stands_under_the_mask_reaches_neither_value_nor_gradient(batch: Judged, filler: float) -> None:
    other = torch.where(batch.mask, batch.logprobs, filler)
    losses = [
        lambda x: real_loss(x, torch.where(batch.mask, x.detach() - 0.3, filler), *batch[1:]),
        lambda x: conspo_loss(x, *batch[1:], temperature=0.5),
    ]
    for loss in losses:
        assert_equal(gradients(loss, other), gradients(loss, batch.logprobs))


@given(judged(), MARGINS)
def test_conspo_compares_only_and_a_margin_asks_for_more(batch: Judged, margin: float) -> None:
    losses, gradient = gradients(lambda x: conspo_loss(x, *batch[1:], temperature=0.5), batch.logprobs)
    assert_same(conspo_loss(batch.logprobs - 3, *batch[1:], temperature=0.5), losses)
    assert bool((conspo_loss(*batch, temperature=0.5, margin=margin) >= losses - 1e-12).all())
    for group in batch.ids.unique():
        assert_same(gradient[batch.ids == group].sum(), torch.zeros((), dtype=torch.float64))


@given(judged())
def test_groups_without_both_verdicts_say_nothing(batch: Judged) -> None:
    count = mixed_groups(batch)
    assert bool(real_loss(batch.logprobs, batch.logprobs, *batch[1:]) > 0) is (count > 0)
    assert bool(conspo_loss(*batch, temperature=0.5).any()) is (count > 0)


@pytest.mark.parametrize("layout", [True, False])
def test_first_and_second_derivatives(layout: bool) -> None:
    ids = torch.tensor([4, 4, 1, 4, 1])
    groups = GroupLayout.from_ids(ids) if layout else ids
    success, mask = (
        torch.tensor([True, False, True, True, False]),
        torch.rand(5, 3).round().bool() | torch.eye(5, 3).bool(),
    )
    logprobs, old = -noise(0, 5, 3).abs().requires_grad_(), -noise(1, 5, 3).abs()
    for loss in (
        lambda x: real_loss(x, old, success, groups, mask),
        lambda x: conspo_loss(x, success, groups, mask, temperature=0.7, margin=0.1),
    ):
        assert torch.autograd.gradcheck(loss, logprobs)
        assert torch.autograd.gradgradcheck(loss, logprobs)
