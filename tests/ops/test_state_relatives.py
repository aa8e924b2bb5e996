"""What hidden states are worth: alignment, distance to a robust centre, distance to spans of the opposite verdict."""

from itertools import permutations
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cosine_similarity

from clipo_ops import GroupLayout
from clipo_ops.experimental import hidden_align_loss, latent_grpo_reward, shear_weights
from clipo_ops.experimental.spans import _opposite_distances

from . import oracles
from .helpers import HALF, assert_equal, assert_nearly_equal, assert_same, gradients
from .strategies import SEEDS, Batch, batches, masks, noise

BANDWIDTHS = st.sampled_from([0.01, 0.3, 1.0, 10.0])
ITERATIONS = st.integers(0, 4)


# --- Hidden-Align


@given(batches())
def test_alignment_agrees_with_the_oracle(batch: Batch) -> None:
    expected = oracles.hidden_align_loss(*batch)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        assert_same(hidden_align_loss(batch.embeddings, batch.success, groups), expected)


@given(st.integers(2, 6), SEEDS)
def test_its_mean_is_one_minus_the_mean_cosine_of_all_pairs(size: int, seed: int) -> None:
    states = noise(seed, size, 4)
    losses = hidden_align_loss(states, torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.long))
    pairs = [cosine_similarity(states[i], states[j], dim=0) for i in range(size) for j in range(i)]
    assert_same(losses.mean(), 1 - torch.stack(pairs).mean())


@given(batches(), st.sampled_from([torch.nan, 1.0]))
def test_only_correct_rollouts_have_a_say_and_a_gradient(batch: Batch, filler: float) -> None:
    other = torch.where(batch.success.unsqueeze(1), batch.embeddings, filler)
    results = [gradients(lambda x: hidden_align_loss(x, *batch[1:]), x) for x in (batch.embeddings, other)]
    assert_equal(*results)
    losses, gradient = results[0]
    assert not losses[~batch.success].any()
    assert not gradient[~batch.success].any()
    assert bool(gradient.isfinite().all())
    assert bool((losses >= -1e-12).all() and (losses <= 2 + 1e-12).all())


@given(st.integers(2, 6), SEEDS)
def test_a_step_against_its_gradient_brings_states_nearer(size: int, seed: int) -> None:
    everyone = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.long)
    states = noise(seed, size, 5).requires_grad_()
    loss = hidden_align_loss(states, *everyone).mean()
    (gradient,) = torch.autograd.grad(loss, states)
    assert hidden_align_loss(states - 1e-3 * gradient, *everyone).mean() <= loss


def test_a_rollout_without_an_anchor_takes_no_part() -> None:
    states = noise(0, 4, 3)
    states[1] = 0
    success, groups = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.long)
    present = torch.tensor([0, 2, 3])
    losses = hidden_align_loss(states, success, groups)
    assert losses[1] == 0
    assert_same(losses[present], hidden_align_loss(states[present], success[present], groups[present]))


@pytest.mark.parametrize("layout", [True, False])
def test_first_and_second_derivatives_of_the_alignment(layout: bool) -> None:
    ids, success = torch.tensor([2, 2, 0, 2, 0]), torch.tensor([True, True, True, True, False])
    groups = GroupLayout.from_ids(ids) if layout else ids
    states = noise(0, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: hidden_align_loss(x, success, groups), states)
    assert torch.autograd.gradgradcheck(lambda x: hidden_align_loss(x, success, groups), states)


# --- Latent-GRPO


@given(batches(), BANDWIDTHS, ITERATIONS)
def test_distances_to_the_centre_agree_with_the_oracle(batch: Batch, bandwidth: float, iterations: int) -> None:
    options = {"bandwidth": bandwidth, "iterations": iterations}
    expected = oracles.latent_grpo_reward(batch.embeddings, batch.ids, **options)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        # Where distances are nearly equal, min-max scaling magnifies their rounding.
        assert_same(latent_grpo_reward(batch.embeddings, groups, **options), expected, rtol=1e-6, atol=1e-6)


@given(batches(), BANDWIDTHS, ITERATIONS)
def test_in_each_group_the_nearest_gets_1_and_the_farthest_0(batch: Batch, bandwidth: float, iterations: int) -> None:
    rewards = latent_grpo_reward(batch.embeddings, batch.ids, bandwidth=bandwidth, iterations=iterations)
    present = batch.embeddings.any(1)
    assert not rewards[~present].any()
    for group in batch.ids.unique():
        own = rewards[present & (batch.ids == group)]
        assert not own.any() or (own.max() == 1 and own.min() == 0)


@given(batches(), SEEDS)
def test_neither_the_length_of_a_state_nor_the_order_matters(batch: Batch, seed: int) -> None:
    options = {"bandwidth": 0.5, "iterations": 3}
    rewards = latent_grpo_reward(batch.embeddings, batch.ids, **options)
    lengths = noise(seed, len(rewards), 1).abs() + 0.1
    longer = latent_grpo_reward(batch.embeddings * lengths, batch.ids, **options)
    assert_same(longer, rewards, rtol=1e-6, atol=1e-6)
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    reordered = latent_grpo_reward(batch.embeddings[order], batch.ids[order], **options)
    assert_same(reordered, rewards[order], rtol=1e-6, atol=1e-6)


def test_the_centre_leaves_outliers_behind() -> None:
    """Five near one direction, three near another: the mean lies between them, the robust centre with the five."""
    states = torch.tensor([[1.0, 0.02 * i] for i in range(5)] + [[0.02 * i, 1.0] for i in range(3)])
    groups = torch.zeros(8, dtype=torch.long)
    mean = latent_grpo_reward(states, groups, bandwidth=0.5, iterations=0)
    robust = latent_grpo_reward(states, groups, bandwidth=0.5, iterations=20)
    assert robust[:5].min() > 0.9 > mean[:5].min()
    assert robust[5:].max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_rounding_is_no_difference(dtype: torch.dtype) -> None:
    states = (torch.ones(6, 64) + 1e-7 * noise(0, 6, 64)).to(dtype)
    rewards = latent_grpo_reward(states, torch.zeros(6, dtype=torch.long), bandwidth=0.5, iterations=5)
    assert rewards.dtype == dtype
    assert not rewards.any()


# --- SHEAR


class Spans(NamedTuple):
    hidden: Tensor
    success: Tensor
    ids: Tensor
    mask: Tensor


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    """Up to five responses of up to six tokens, with holes and without any."""
    mask = draw(masks())
    count = len(mask)
    success = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    ids = torch.tensor(draw(st.lists(st.sampled_from([5, 5, 1]), min_size=count, max_size=count)))
    return Spans(noise(draw(SEEDS), *mask.shape, 2), success, ids, mask)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, float]:
    window = draw(st.integers(1, 7))
    return {
        "regularization": draw(st.sampled_from([0.1, 1.0, 10.0])),
        "window": window,
        "stride": draw(st.integers(1, window)),
        "iterations": draw(st.integers(1, 5)),
    }


@given(spans(), windows())
def test_weights_agree_with_the_oracle(batch: Spans, options: dict[str, float]) -> None:
    expected = oracles.shear_weights(*batch, **options)
    for groups in (batch.ids, GroupLayout.from_ids(batch.ids)):
        actual = shear_weights(batch.hidden, batch.success, groups, batch.mask, **options)
        assert_same(actual, expected, rtol=1e-7, atol=1e-9)


@given(st.integers(1, 4), SEEDS, st.sampled_from([0.01, 0.1, 1.0]))
def test_the_distance_is_the_cheapest_matching_up_to_the_entropy(size: int, seed: int, regularization: float) -> None:
    """W_1 <= W_eps <= W_1 + eps log n (the paper's lemma 1); W_1 of equal weights is the best of all matchings."""
    hidden = noise(seed, 2, size, 3)
    verdicts = torch.tensor([True, False]), torch.zeros(2, dtype=torch.long), torch.ones(2, size).bool()
    weights = shear_weights(hidden, *verdicts, regularization=regularization, window=size, iterations=2000, stride=1)
    costs = torch.cdist(hidden[0], hidden[1])
    best = min(sum(costs[a, b].item() for a, b in enumerate(order)) / size for order in permutations(range(size)))
    distance = weights[0, 0].item() * hidden.norm(dim=2).mean().item()
    bound = regularization * torch.tensor(float(size)).log().item()
    assert best - 0.01 <= distance <= best + bound + 0.01
    assert_same(weights, weights[:1, :1].expand(2, size), rtol=0.02, atol=0.01)  # one span each: one weight for all


@given(spans(), windows())
def test_without_the_opposite_verdict_advantages_stay_as_they_are(batch: Spans, options: dict[str, float]) -> None:
    for verdict in (True, False):
        one = torch.full_like(batch.success, verdict)
        weights = shear_weights(batch.hidden, one, batch.ids, batch.mask, **options)
        assert_equal(weights, batch.mask.double())


@given(spans(), windows(), st.sampled_from([torch.nan, torch.inf]))
def test_weights_are_not_negative_and_what_is_masked_and_which_verdict_is_which_do_not_matter(
    batch: Spans, options: dict[str, float], filler: float
) -> None:
    weights = shear_weights(*batch, **options)
    assert bool((weights >= 0).all() and weights.isfinite().all())
    assert not weights[~batch.mask].any()
    hidden = torch.where(batch.mask.unsqueeze(2), batch.hidden, filler)
    assert_equal(shear_weights(hidden, *batch[1:], **options), weights)
    assert_equal(shear_weights(batch.hidden, ~batch.success, *batch[2:], **options), weights)


@given(spans(), windows(), st.sampled_from([0.25, 64.0]))
def test_neither_the_scale_of_the_states_nor_more_padding_matters(
    batch: Spans, options: dict[str, float], factor: float
) -> None:
    weights = shear_weights(*batch, **options)
    scaled = {**options, "regularization": options["regularization"] * factor}
    assert_nearly_equal(shear_weights(batch.hidden * factor, *batch[1:], **scaled), weights)
    hidden = torch.nn.functional.pad(batch.hidden, (0, 0, 0, 5), value=3.0)
    padded = shear_weights(hidden, *batch[1:3], torch.nn.functional.pad(batch.mask, (0, 5)), **options)
    assert_nearly_equal(padded[:, :-5], weights)


def test_weights_are_large_after_two_responses_part() -> None:
    """Six tokens alike, then the incorrect response goes elsewhere: its later tokens weigh most."""
    shared, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    hidden = torch.stack([shared.expand(12, 2), torch.cat([shared.expand(6, 2), other.expand(6, 2)])])
    verdicts = torch.tensor([True, False]), torch.zeros(2, dtype=torch.long), torch.ones(2, 12).bool()
    weights = shear_weights(hidden, *verdicts, regularization=0.05, window=3, stride=1)
    assert weights[1, :3].max() < 0.01
    assert weights[1, 8:].min() > 1.4
    assert weights[0].max() < 0.01  # every span of the correct response is also in the incorrect one


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_weights_of_half_precision_are_computed_in_float32(dtype: torch.dtype) -> None:
    hidden = noise(0, 4, 8, 5).to(dtype)
    verdicts = torch.arange(4) % 2 == 0, torch.zeros(4, dtype=torch.long), torch.ones(4, 8).bool()
    options = {"regularization": 0.5, "window": 4, "stride": 2}
    weights = shear_weights(hidden, *verdicts, **options)
    assert weights.dtype == dtype
    torch.testing.assert_close(weights, shear_weights(hidden.double(), *verdicts, **options).to(dtype))


def test_the_distances_never_wait_for_the_device() -> None:
    """The operator's body, which the fake tensors of the other tests do not enter."""
    with FakeTensorMode():
        states = torch.empty(2, 4, 30, 7, device="cuda")
        counts = torch.empty(2, 4, 30, dtype=torch.bool, device="cuda")
        opposite = torch.empty(2, 4, 4, dtype=torch.bool, device="cuda")
        distances = _opposite_distances(states, counts, opposite, 1.0, 10, 4, 2)
        assert distances.shape == counts.shape
        assert distances.device.type == "cuda"


def test_states_are_constants() -> None:
    hidden = noise(0, 4, 3, 2).requires_grad_()
    verdicts = torch.arange(4) % 2 == 0, torch.zeros(4, dtype=torch.long)
    assert not shear_weights(hidden, *verdicts, torch.ones(4, 3).bool(), regularization=1.0).requires_grad
    assert not latent_grpo_reward(hidden[:, 0], verdicts[1], bandwidth=1.0, iterations=1).requires_grad
