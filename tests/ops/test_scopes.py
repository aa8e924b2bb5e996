"""Scopes beyond the group, other similarities, anchors and offsets; and the tiles that whole batches go through."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import GroupLayout, contrastive_anchors, contrastive_loss, infonce, supcon_in, supcon_out
from clipo_ops._kernels import tiles as _tiles

from . import oracles
from .contrastive import EXACT, SCOPES, every_objective, every_scope, losses, losses_and_gradient, oracle
from .helpers import HALF, assert_nearly_equal, assert_rounded, assert_same, gradients
from .strategies import SEEDS, TEMPERATURES, Batch, anchored_batches, batches, noise
from .test_contrastive import LargestTensor
from .test_objectives import length, mean_logit, without_positives

OPTIONS = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(SCOPES),
        "anchors": st.sampled_from(["success", "all"]),
        "similarity": st.sampled_from(["cosine", "l2"]),
    }
)
every_whole_scope = pytest.mark.parametrize("scope", ["cross", "batch"])


def set_rows(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    """Tiles of so many rows in float64, for a batch of so many rollouts."""
    monkeypatch.setattr(_tiles, "BUDGET", rows * columns * 8)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    set_rows(monkeypatch, 3, 16)


# --- agreement with the oracle


@every_objective
@pytest.mark.usefixtures("small_tiles")
@given(batch=batches(), temperature=TEMPERATURES, options=OPTIONS)
def test_agrees_with_the_oracle(objective: Any, batch: Batch, temperature: float, options: dict[str, str]) -> None:
    actual = losses(batch, objective, temperature=temperature, **options)
    assert_same(actual, oracle(batch, objective, temperature, **options), atol=1e-8 / temperature)


@given(batch=batches(), options=OPTIONS)
def test_anchors_have_a_positive_and_a_candidate_that_is_none(batch: Batch, options: dict[str, str]) -> None:
    del options["similarity"]
    expected = oracles.contrastive_anchors(batch.success, batch.ids, **options)
    assert torch.equal(contrastive_anchors(batch.success, batch.ids, **options), expected)
    assert torch.equal(contrastive_anchors(batch.success, GroupLayout.from_ids(batch.ids), **options), expected)


@every_scope
@pytest.mark.parametrize("objective", [supcon_out, supcon_in], ids=lambda f: f.__name__)
@given(batch=batches(), temperature=TEMPERATURES)
def test_less_its_lower_bound_a_loss_is_at_least_0(
    objective: Any, scope: str, batch: Batch, temperature: float
) -> None:
    options = {"temperature": temperature, "scope": scope, "offset": "log_positives"}
    actual = losses(batch, objective, **options)
    assert_same(actual, oracle(batch, objective, **options), atol=1e-9 / temperature)
    assert (actual >= -1e-9).all()


@every_whole_scope
@pytest.mark.usefixtures("small_tiles")
@given(dtype=st.sampled_from([*HALF, torch.float32]), batch=anchored_batches())
def test_low_precision_is_rounded_once(scope: str, dtype: torch.dtype, batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.to(dtype))
    assert_rounded(losses(batch, scope=scope), oracle(batch, supcon_out, scope=scope), dtype, slack=4e-5)


@every_scope
@every_objective
@pytest.mark.usefixtures("small_tiles")
@given(
    batch=anchored_batches(), similarity=st.sampled_from(["cosine", "l2"]), reduction=st.sampled_from(["none", "mean"])
)
def test_passes_gradcheck(scope: str, objective: Any, batch: Batch, similarity: str, reduction: str) -> None:
    def loss(embeddings: Tensor) -> Tensor:
        options: dict[str, Any] = {"scope": scope, "similarity": similarity, "reduction": reduction}
        return contrastive_loss(embeddings, *batch[1:], objective=objective, temperature=0.5, **options)

    assert torch.autograd.gradcheck(loss, (batch.embeddings.requires_grad_(),), fast_mode=True)


@every_scope
@given(seed=SEEDS)
def test_equal_embeddings_have_finite_l2_gradients(scope: str, seed: int) -> None:
    vector = noise(seed, 1, 4).float()
    batch = Batch(vector.expand(6, 4), torch.arange(6) % 3 < 2, torch.arange(6) // 3)
    value, grad = losses_and_gradient(batch, scope=scope, similarity="l2")
    assert_same(value.double(), oracle(batch, supcon_out, scope=scope, similarity="l2"), atol=0.02)
    assert grad.isfinite().all()


# --- what may not matter


@every_objective
@given(seed=SEEDS, anchors=st.sampled_from(["success", "all"]))
def test_for_one_group_all_scopes_agree(objective: Any, seed: int, anchors: str) -> None:
    batch = Batch(noise(seed, 7, 4), torch.arange(7) % 2 == 0, torch.zeros(7).long())
    group, *others = [losses_and_gradient(batch, objective, scope=scope, anchors=anchors) for scope in SCOPES]
    for other in others:
        assert_same(other, group, atol=1e-9)


@every_whole_scope
@given(batch=batches(), seed=SEEDS)
def test_neither_order_nor_the_form_of_groups_matters(scope: str, batch: Batch, seed: int) -> None:
    expected = losses_and_gradient(batch, scope=scope)
    layout = GroupLayout.from_ids(batch.ids)
    assert_same(losses_and_gradient(batch._replace(ids=layout), scope=scope), expected)
    order = noise(seed, len(batch.ids)).argsort()
    assert_same(losses(Batch(*(x[order] for x in batch)), scope=scope), expected[0][order], atol=1e-9)


@every_objective
@given(batch=anchored_batches())
def test_swapping_correct_and_incorrect_does_not_change_all_anchors(objective: Any, batch: Batch) -> None:
    swapped = batch._replace(success=~batch.success)
    assert_same(losses(swapped, objective, anchors="all"), losses(batch, objective, anchors="all"))


@every_whole_scope
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_without_an_anchor_the_loss_is_a_differentiable_zero(scope: Any, reduction: Any) -> None:
    embeddings = torch.randn(4, 3, requires_grad=True)
    ids = torch.arange(4)
    loss = contrastive_loss(embeddings, ids < 1, ids, objective=supcon_out, scope=scope, reduction=reduction)
    (grad,) = torch.autograd.grad(loss.sum(), embeddings)
    assert loss.count_nonzero() == 0
    assert grad.count_nonzero() == 0


@every_scope
@pytest.mark.parametrize("objective", [*EXACT, mean_logit, without_positives, length], ids=lambda f: f.__name__)
@pytest.mark.usefixtures("small_tiles")
@given(batch=anchored_batches(), zeros=st.sets(st.integers(0, 2)))
def test_idle_rows_and_null_embeddings_are_harmless(scope: str, objective: Any, batch: Batch, zeros: set[int]) -> None:
    batch.embeddings[list(zeros)] = 0
    value, grad = losses_and_gradient(batch, objective, scope=scope)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    assert grad[list(zeros)].count_nonzero() == 0


@every_whole_scope
@given(batch=anchored_batches())
def test_autocast_changes_neither_value_nor_gradient(scope: str, batch: Batch) -> None:
    batch = batch._replace(embeddings=batch.embeddings.float())
    plain = losses_and_gradient(batch, scope=scope)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_nearly_equal(losses_and_gradient(batch, scope=scope), plain)


# --- tiles


@every_whole_scope
@pytest.mark.parametrize("rows", [1, 4, 5, 20])
@pytest.mark.parametrize("own", [False, True], ids=["default generator", "own generator"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_positives_of_tiles_are_drawn_once(
    scope: Any, rows: int, own: bool, reduction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles draw what one tile does; so a gradient of other positives than the value's would differ."""

    def call(tile: int) -> tuple[Tensor, ...]:
        set_rows(monkeypatch, tile, 20)
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(6)
        objective = partial(infonce, generator=generator) if own else infonce
        batch = noise(0, 20, 4), torch.arange(20) % 5 < 3, torch.arange(20) // 5
        options = {"objective": objective, "scope": scope, "reduction": reduction}
        results = gradients(lambda z: contrastive_loss(z, *batch[1:], **options), batch[0])
        return *results, torch.rand(1), torch.rand(1, generator=generator)

    assert_same(call(rows), call(100))


@given(seed=SEEDS)
def test_a_sampled_gradient_is_that_of_the_sampled_value(seed: int) -> None:
    """Two losses of the same draws differ by gradient times step."""
    embeddings, step = noise(seed, 9, 3), noise(seed + 1, 9, 3) * 1e-6

    def call(z: Tensor) -> Tensor:
        objective = partial(infonce, generator=torch.Generator().manual_seed(seed))
        return losses(
            Batch(z, torch.arange(9) % 3 < 2, torch.zeros(9).long()), objective, scope="batch", temperature=1.0
        )

    _, grad = gradients(call, embeddings)
    weights = torch.linspace(1, 2, 9, dtype=torch.float64)
    change = ((call(embeddings + step) - call(embeddings - step)) * weights).sum() / 2
    assert_same(change, (grad * step).sum(), rtol=1e-3, atol=1e-11)


@every_whole_scope
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_memory_is_rollouts_times_tile(scope: Any, reduction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rows(monkeypatch, 100, 1024)
    largest, ids = LargestTensor(), torch.arange(1024) // 8
    embeddings = noise(0, 1024, 4).requires_grad_()
    with largest:
        loss = contrastive_loss(embeddings, ids % 8 < 3, ids, objective=supcon_out, scope=scope, reduction=reduction)
        loss.sum().backward()
    assert largest.numel == 1024 * 100
