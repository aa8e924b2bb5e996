"""Derivatives of the contrastive loss beyond the first, and by what is not an embedding: right or refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from clipo_ops import GroupLayout, contrastive_loss, infonce, supcon_out
from clipo_ops._kernels.gram import _Gram, group_cosines
from clipo_ops._kernels.tiles import _Products, tiled_losses

from .contrastive import every_objective, every_scope
from .helpers import assert_same, gradients
from .strategies import SEEDS, Batch, anchored_batches, noise
from .test_scopes import small_tiles  # noqa: F401

every_reduction = pytest.mark.parametrize("reduction", ["none", "mean"])


def loss_of(batch: Batch, **options: Any) -> Callable[[Tensor], Tensor]:
    return lambda z: contrastive_loss(z, *batch[1:], **{"temperature": 0.5, **options})


# --- the hand-written gradients next to their plain twins


@given(seed=SEEDS)
def test_one_product_has_the_derivatives_of_the_plain_gram_matrix(seed: int) -> None:
    vectors = noise(seed, 2, 4, 3)
    assert_same(gradients(_Gram.apply, vectors), gradients(lambda x: x @ x.mT, vectors))
    assert torch.autograd.gradgradcheck(_Gram.apply, (vectors.requires_grad_(),), fast_mode=True)


@given(seed=SEEDS)
def test_products_in_full_precision_have_the_derivatives_of_plain_ones(seed: int) -> None:
    pair = noise(seed, 3, 4), noise(seed + 1, 5, 4)
    assert_same(gradients(_Products.apply, *pair), gradients(lambda x, y: x @ y.mT, *pair))
    assert torch.autograd.gradgradcheck(_Products.apply, tuple(x.requires_grad_() for x in pair), fast_mode=True)


@given(batch=anchored_batches())
def test_cosines_of_groups_and_of_tiles_are_those_of_normalised_vectors(batch: Batch) -> None:
    def plain(z: Tensor) -> Tensor:
        units = nn.functional.normalize(z, dim=1)
        return units @ units.mT

    whole = torch.zeros(len(batch.ids), dtype=torch.long)
    expected = gradients(plain, batch.embeddings)
    layout = GroupLayout.from_ids(whole)
    assert_same(gradients(lambda z: group_cosines(z, layout)[0], batch.embeddings), expected)
    rows = gradients(
        lambda z: tiled_losses(z, lambda cosines, rows: (cosines * cosines.cos()).sum(1)), batch.embeddings
    )
    assert_same(rows, gradients(lambda z: (plain(z) * plain(z).cos()).sum(1), batch.embeddings))


# --- second derivatives


@every_scope
@every_objective
@pytest.mark.parametrize("similarity", ["cosine", "l2"])
@pytest.mark.usefixtures("small_tiles")
@given(batch=anchored_batches())
def test_second_derivatives_are_right(scope: str, objective: Any, similarity: str, batch: Batch) -> None:
    loss = loss_of(batch, objective=objective, scope=scope, similarity=similarity)
    assert torch.autograd.gradgradcheck(loss, (batch.embeddings.requires_grad_(),), fast_mode=True)


@every_scope
@every_reduction
def test_a_penalty_on_the_gradient_is_not_ignored(scope: Any, reduction: Any) -> None:
    batch = Batch(noise(0, 9, 3), torch.arange(9) % 3 < 2, torch.arange(9) // 9)
    loss, z = loss_of(batch, objective=supcon_out, scope=scope, reduction=reduction), batch.embeddings.requires_grad_()

    def penalty(x: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(loss(x).sum(), x, create_graph=True)
        return grad.square().sum()

    penalty(z).backward()
    assert z.grad is not None
    step = noise(1, 9, 3) * 1e-5
    change = penalty(z + step) - penalty(z - step)
    assert_same(change.detach(), 2 * (z.grad * step).sum(), rtol=1e-5)


@every_scope
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, on the first jvp
def test_forward_mode_and_transforms_are_right_or_refused(scope: Any) -> None:
    batch = Batch(noise(0, 9, 3), torch.arange(9) % 3 < 2, torch.arange(9) // 9)
    loss, step = loss_of(batch, objective=supcon_out, scope=scope), noise(1, 9, 3)
    expected = (gradients(loss, batch.embeddings)[1] * step).sum()
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(loss, (batch.embeddings,), (step,))
    try:
        assert_same((torch.func.grad(loss)(batch.embeddings) * step).sum(), expected)
    except RuntimeError as error:
        assert scope != "group"
        assert "saved tensor hooks" in str(error)  # noqa: PT017


# --- parameters of an objective


class Scaled(nn.Module):
    """A module as objective."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
        return supcon_out(logits * self.scale, positives, candidates)


@every_scope
@every_reduction
@pytest.mark.parametrize("kind", ["module", "closure", "method"])
@pytest.mark.usefixtures("small_tiles")
def test_the_parameters_of_an_objective_learn_in_every_scope(scope: Any, reduction: Any, kind: str) -> None:
    batch, module = Batch(noise(0, 12, 4), torch.arange(12) % 3 < 2, torch.arange(12) // 6), Scaled()
    forms = {"module": module, "method": module.forward, "closure": lambda *row: module(*row)}
    call = loss_of(batch, objective=forms[kind], scope=scope, temperature=0.4, reduction=reduction)

    def loss(embeddings: Tensor) -> Tensor:
        return call(embeddings).sum()

    (grad,) = torch.autograd.grad(loss(batch.embeddings), module.scale)  # embeddings that need no gradient
    z = batch.embeddings.requires_grad_()
    _, with_embeddings = torch.autograd.grad(loss(z), (z, module.scale))
    values = []
    for scale in (1.5 + 1e-5, 1.5 - 1e-5):
        module.scale.data.fill_(scale)
        values.append(loss(z).detach())
    difference = (values[0] - values[1]) / 2e-5
    assert difference.abs() > 0.1
    assert_same(grad, difference, rtol=1e-6)
    assert_same(with_embeddings, difference, rtol=1e-6)


# --- draws


GENERATOR = torch.Generator()


class Sampler:
    def __init__(self) -> None:
        self.generator = GENERATOR

    def __call__(self, *row: Tensor) -> Tensor:
        return infonce(*row, generator=self.generator)


def noisy(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Draws for every logit, in place, from two generators."""
    noise_of_logits = torch.empty_like(logits).normal_(generator=GENERATOR)
    return supcon_out(logits * (1 + noise_of_logits + torch.rand_like(logits)), positives, candidates)


SAMPLING: dict[str, Any] = {
    "default": infonce,
    "partial": partial(infonce, generator=GENERATOR),
    "lambda": lambda *row: infonce(*row, generator=GENERATOR),
    "attribute": Sampler(),
    "method": Sampler().__call__,
    "two generators": noisy,
}


@every_scope
@every_reduction
@pytest.mark.parametrize("objective", SAMPLING.values(), ids=SAMPLING.keys())
@pytest.mark.usefixtures("small_tiles")
def test_a_gradient_is_that_of_the_draws_that_made_the_value(scope: Any, reduction: Any, objective: Any) -> None:
    batch, step = Batch(noise(0, 12, 3), torch.arange(12) % 6 < 4, torch.arange(12) // 6), noise(1, 12, 3) * 1e-6

    def loss(z: Tensor) -> Tensor:
        torch.manual_seed(4)
        GENERATOR.manual_seed(5)
        return loss_of(batch, objective=objective, scope=scope, reduction=reduction)(z)

    weights = torch.linspace(1, 2, loss(batch.embeddings).numel(), dtype=torch.float64)
    z = batch.embeddings.clone().requires_grad_()
    value = (loss(z) * weights).sum()
    state = GENERATOR.get_state(), torch.get_rng_state()
    (grad,) = torch.autograd.grad(value, z, retain_graph=True)
    (again,) = torch.autograd.grad(value, z)
    assert torch.equal(state[0], GENERATOR.get_state())
    assert torch.equal(state[1], torch.get_rng_state())
    change = ((loss(z + step) - loss(z - step)) * weights).sum() / 2
    assert_same(change.detach(), (grad * step).sum(), rtol=1e-4, atol=1e-11)
    assert_same(again, grad)
