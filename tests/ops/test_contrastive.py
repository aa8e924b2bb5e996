"""The contrastive loss: who is compared with whom, what may not matter, and the cases that break other code."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import (
    GroupLayout,
    centroid,
    contrastive_anchors,
    contrastive_loss,
    infonce,
    sincere,
    soft_nearest_neighbor,
    supcon_in,
    supcon_out,
)

from . import oracles
from .contrastive import EXACT, every_objective, losses, losses_and_gradient, oracle
from .helpers import HALF, assert_nearly_equal, assert_rounded, assert_same
from .strategies import SEEDS, TEMPERATURES, Batch, anchored_batches, batches, noise

every_reduction = pytest.mark.parametrize("reduction", ["none", "sum", "mean"])


# --- agreement with the oracle


@every_objective
@given(batch=batches(), temperature=TEMPERATURES)
def test_agrees_with_the_oracle(objective: Any, batch: Batch, temperature: float) -> None:
    actual = losses(batch, objective, temperature=temperature)
    assert_same(actual, oracle(batch, objective, temperature), atol=1e-11 / temperature)


@every_objective
@given(dtype=st.sampled_from([*HALF, torch.float32]), batch=anchored_batches(), temperature=TEMPERATURES)
def test_low_precision_is_rounded_once(objective: Any, dtype: torch.dtype, batch: Batch, temperature: float) -> None:
    batch = batch._replace(embeddings=batch.embeddings.to(dtype))
    exact = oracle(batch, objective, temperature)
    assert_rounded(losses(batch, objective, temperature=temperature), exact, dtype, slack=2e-6 / min(1, temperature))


@every_objective
@given(batch=anchored_batches())
def test_passes_gradcheck(objective: Any, batch: Batch) -> None:
    def loss(embeddings: Tensor) -> Tensor:
        return losses(batch._replace(embeddings=embeddings), objective, temperature=0.5)

    assert torch.autograd.gradcheck(loss, (batch.embeddings.requires_grad_(),), fast_mode=True)


@every_objective
@given(batch=anchored_batches())
def test_the_gradient_in_float32_is_that_in_float64(objective: Any, batch: Batch) -> None:
    _, exact = losses_and_gradient(batch, objective, temperature=1.0)
    single = batch._replace(embeddings=batch.embeddings.float())
    _, grad = losses_and_gradient(single, objective, temperature=1.0)
    torch.testing.assert_close(grad.double(), exact, rtol=1e-4, atol=1e-5 * max(1.0, exact.abs().max().item()))


@given(batch=batches())
def test_anchors_are_the_correct_ones_with_another_correct_and_an_incorrect_one(batch: Batch) -> None:
    expected = oracles.contrastive_anchors(batch.success, batch.ids)
    assert torch.equal(contrastive_anchors(batch.success, batch.ids), expected)
    assert torch.equal(contrastive_anchors(batch.success, GroupLayout.from_ids(batch.ids)), expected)


@given(batch=batches())
def test_reductions_are_over_anchors(batch: Batch) -> None:
    each = losses(batch)
    count = oracles.contrastive_anchors(batch.success, batch.ids).sum()
    assert_same(contrastive_loss(*batch, objective=supcon_out, reduction="sum"), each.sum())
    assert_same(contrastive_loss(*batch, objective=supcon_out, reduction="mean"), each.sum() / max(count, 1))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_mean_of_many_anchors_in_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    success = (torch.arange(12288) % 3 < 2).view(-1, 3)
    vectors = torch.where(success.unsqueeze(2), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    vectors[:, 1] = torch.tensor([1.0, 0.0])  # every anchor is closer to the wrong rollout than to its positive
    batch = Batch(vectors.view(-1, 2).to(dtype), success.flatten(), torch.arange(12288) // 3)
    exact = oracle(Batch(*(x[:3] for x in batch)), supcon_out).sum() / 2
    assert_rounded(contrastive_loss(*batch, objective=supcon_out), exact, dtype, slack=1e-5)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(batch=anchored_batches())
def test_the_mean_in_half_precision_is_rounded_once(dtype: torch.dtype, batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.to(dtype))
    exact = oracle(batch, supcon_out)[batch.success].mean()
    assert_rounded(contrastive_loss(*batch, objective=supcon_out), exact, dtype, slack=4e-5)


# --- what may not matter


@every_objective
@given(groups=st.integers(1, 3), size=st.integers(3, 5), seed=SEEDS)
def test_ids_layout_and_ordered_layout_agree_in_value_and_gradient(
    objective: Any, groups: int, size: int, seed: int
) -> None:
    ids = torch.arange(groups * size) // size
    batch = Batch(noise(seed, len(ids), 4), torch.arange(len(ids)) % size < 2, ids)
    forms = [ids, GroupLayout.from_ids(-ids), GroupLayout.from_size(len(ids), size, device="cpu")]
    results = [losses_and_gradient(batch._replace(ids=form), objective) for form in forms]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@every_objective
@given(batch=batches(), seed=SEEDS)
def test_the_order_of_rollouts_does_not_matter(objective: Any, batch: Batch, seed: int) -> None:
    order = noise(seed, len(batch.ids)).argsort()
    assert_same(losses(Batch(*(x[order] for x in batch)), objective), losses(batch, objective)[order], atol=1e-9)


@every_objective
@given(batch=batches(), seed=SEEDS)
def test_rotating_the_embeddings_changes_nothing(objective: Any, batch: Batch, seed: int) -> None:
    dim = batch.embeddings.shape[1]
    rotation, _ = torch.linalg.qr(noise(seed, dim, dim))
    rotated = batch._replace(embeddings=batch.embeddings @ rotation)
    assert_same(losses(rotated, objective), losses(batch, objective), atol=1e-9)


@given(batch=anchored_batches(), seed=SEEDS)
def test_the_length_of_an_embedding_does_not_matter(batch: Batch, seed: int) -> None:
    lengths = noise(seed, len(batch.ids), 1).exp()
    assert_same(losses(batch._replace(embeddings=batch.embeddings * lengths)), losses(batch), atol=1e-9)


@given(batch=anchored_batches())
def test_the_gradient_is_orthogonal_to_the_embedding(batch: Batch) -> None:
    _, grad = losses_and_gradient(batch)
    assert_same((grad * batch.embeddings).sum(1), torch.zeros(len(grad)).double(), atol=1e-9)


@every_objective
@given(batch=batches())
def test_groups_are_independent_in_value_and_gradient(objective: Any, batch: Batch) -> None:
    """And so a batch may be split by group over ranks: losses and gradients of the parts are those of the whole."""

    def summed(part: Batch) -> tuple[Tensor, Tensor]:
        leaf = part.embeddings.detach().requires_grad_()
        each = losses(part._replace(embeddings=leaf), objective)
        return each.detach(), torch.autograd.grad(each.sum(), leaf)[0]

    whole = summed(batch)
    for group in oracles.members(batch.ids):
        part = summed(Batch(*(x[group] for x in batch)))
        assert_same(part, (whole[0][group], whole[1][group]), atol=1e-9)


def test_nan_embeddings_stay_in_their_group() -> None:
    batch = Batch(noise(0, 6, 3), torch.tensor([1, 1, 0, 1, 1, 0]).bool(), torch.tensor([0, 0, 0, 1, 1, 1]))
    dirty = batch.embeddings.clone()
    dirty[:3] = torch.nan
    value, grad = losses_and_gradient(batch._replace(embeddings=dirty))
    clean_value, clean_grad = losses_and_gradient(batch)
    assert_same(value[3:], clean_value[3:])
    assert_same(grad[3:] / grad[3:].norm(), clean_grad[3:] / clean_grad[3:].norm())


@given(batch=batches())
def test_autocast_changes_neither_value_nor_gradient(batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.float())
    plain = losses_and_gradient(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_nearly_equal(losses_and_gradient(batch), plain)


# --- empty and extreme cases


@every_reduction
@pytest.mark.parametrize(
    "success",
    [[False, False, False], [True, True, True], [True, False, False]],
    ids=["none correct", "all correct", "one correct"],
)
def test_without_an_anchor_the_loss_is_a_differentiable_zero(reduction: str, success: list[bool]) -> None:
    embeddings = torch.randn(3, 4, requires_grad=True)
    loss = contrastive_loss(embeddings, torch.tensor(success), torch.zeros(3).long(), reduction=reduction)
    loss.sum().backward()
    assert loss.count_nonzero() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.count_nonzero() == 0


@every_objective
@pytest.mark.parametrize("size", [0.0, 1e-9])
@given(seed=SEEDS, zeros=st.sets(st.integers(0, 5), min_size=1))
def test_a_zero_embedding_has_no_direction_and_no_gradient(
    objective: Any, size: float, seed: int, zeros: set[int]
) -> None:
    embeddings = noise(seed, 6, 3)
    embeddings[list(zeros)] *= size
    batch = Batch(embeddings, torch.tensor([1, 1, 1, 0, 0, 0]).bool(), torch.zeros(6).long())
    value, grad = losses_and_gradient(batch, objective)
    assert_same(value, oracle(batch, objective))
    assert grad[list(zeros)].count_nonzero() == 0
    assert grad.isfinite().all()


@every_objective
@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("angle", [0.0, 1e-3, 3.1416])
def test_similarities_of_one_at_low_temperature_are_exact_and_have_finite_gradients(
    objective: Any, dtype: torch.dtype, temperature: float, angle: float
) -> None:
    turned = torch.tensor(angle)
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [turned.cos(), turned.sin()], [1.0, 0.0]]).to(dtype)
    batch = Batch(embeddings, torch.tensor([True, True, True, False]), torch.zeros(4).long())
    value, grad = losses_and_gradient(batch, objective, temperature=temperature)
    assert_rounded(value, oracle(batch, objective, temperature), dtype, slack=1e-4)
    assert grad.isfinite().all()


@pytest.mark.parametrize("correct", [2, 3, 8, 15])
def test_perfect_clusters_reach_the_lower_bound(correct: int) -> None:
    success = torch.arange(16) < correct
    clusters = torch.where(success.unsqueeze(1), torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0])).double()
    batch = Batch(clusters, success, torch.zeros(16).long())
    floor = torch.tensor(correct - 1.0, dtype=torch.float64).log()
    for objective, expected in [
        (infonce, floor),
        (supcon_out, floor),
        (supcon_in, floor),
        (soft_nearest_neighbor, 0.0),
        (sincere, 0.0),
        (centroid, 0.0),
    ]:
        assert_same(losses(batch, objective)[success], torch.full((correct,), float(expected)).double(), atol=1e-7)


@given(batch=batches(), temperature=TEMPERATURES)
def test_no_embedding_beats_the_lower_bound(batch: Batch, temperature: float) -> None:
    anchors = oracles.contrastive_anchors(batch.success, batch.ids)
    correct = (batch.ids.unsqueeze(1) == batch.ids)[anchors] & batch.success
    floor = (correct.sum(1) - 1).double().log()
    out, inside, neighbor, apart, decoupled, _ = (losses(batch, f, temperature=temperature)[anchors] for f in EXACT)
    assert (neighbor >= -1e-9).all()
    assert (apart >= 0).all()
    assert (out >= apart - 1e-9).all()
    assert (apart >= decoupled).all()
    assert (inside >= floor - 1e-9).all()
    assert (out >= inside - 1e-9).all()
    assert (losses(batch, infonce, temperature=temperature) >= 0).all()


@pytest.mark.parametrize(("temperature", "least"), [(0.05, 0.1), (0.02, 10.0)])
def test_near_orthogonal_embeddings_do_not_meet_the_official_epsilon(temperature: float, least: float) -> None:
    """The official code takes log(sum + 1e-8) after subtracting the anchor's own similarity, 1 / temperature."""
    batch = Batch(noise(0, 16, 512), torch.arange(16) < 8, torch.zeros(16).long())
    exact = oracle(batch, supcon_out, temperature)
    assert_same(losses(batch, temperature=temperature), exact)
    normal = torch.nn.functional.normalize(batch.embeddings)
    logits = (normal @ normal.T - 1) / temperature
    others = ~torch.eye(16, dtype=torch.bool)
    positives = others & batch.success
    official = (torch.where(others, logits.exp(), 0).sum(1) + 1e-8).log() - (logits * positives).sum(1) / positives.sum(
        1
    )
    assert (official - exact)[:8].mean() > least


# --- memory


def test_memory_is_rollouts_times_group_size() -> None:
    largest = LargestTensor()
    embeddings = noise(0, 1024, 4).requires_grad_()
    with largest:
        contrastive_loss(embeddings, torch.arange(1024) % 8 < 3, torch.arange(1024) % 128).backward()
    assert largest.numel == 1024 * 8


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """The number of elements of the largest result of any operation."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, Tensor)]
        self.numel = max([self.numel, *sizes])
        return result
