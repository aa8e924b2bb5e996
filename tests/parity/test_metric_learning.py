"""pytorch-metric-learning's SupConLoss and NTXentLoss: the same value and gradient, and where they break.

Their labels are our scopes: the verdict for batch scope, group and verdict for cross scope.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from pytorch_metric_learning.reducers import DoNothingReducer
from torch import Tensor

from clipo_ops import contrastive_loss, sincere, supcon_out

from ..ops.helpers import assert_same, gradients
from ..ops.strategies import Batch, anchored_batches

TEMPERATURES = st.sampled_from([0.02, 0.1, 1.0])


def labels(batch: Batch, scope: str) -> Tensor:
    return batch.success.long() if scope == "batch" else 2 * batch.ids + batch.success


def supcon(batch: Batch, scope: str, temperature: float) -> Callable[[Tensor], Tensor]:
    """SupConLoss of every rollout."""
    loss = SupConLoss(temperature=temperature, reducer=DoNothingReducer())
    return lambda x: loss(x, labels(batch, scope))["loss"]["losses"]


def ntxent(batch: Batch, scope: str, temperature: float) -> Callable[[Tensor], Tensor]:
    """NTXentLoss, which is one number per pair, averaged over each rollout's positives."""
    loss = NTXentLoss(temperature=temperature, reducer=DoNothingReducer())

    def per_rollout(x: Tensor) -> Tensor:
        pairs = loss(x, labels(batch, scope))["loss"]
        anchors, ones = pairs["indices"][0], torch.ones_like(pairs["losses"])
        total = torch.zeros(len(x), dtype=x.dtype)
        return total.index_add(0, anchors, pairs["losses"]) / total.index_add(0, anchors, ones).clamp(min=1)

    return per_rollout


PEERS = {"supcon_out": (supcon_out, supcon), "sincere": (sincere, ntxent)}


@pytest.mark.parametrize("scope", ["cross", "batch"])
@pytest.mark.parametrize("name", PEERS)
@given(batch=anchored_batches(), temperature=TEMPERATURES)
def test_losses_and_gradients_of_every_rollout_are_the_same(
    name: str, scope: str, batch: Batch, temperature: float
) -> None:
    objective, peer = PEERS[name]

    def ours(x: Tensor) -> Tensor:
        options = {"anchors": "all", "temperature": temperature, "reduction": "none"}
        return contrastive_loss(x, batch.success, batch.ids, objective=objective, scope=scope, **options)

    theirs = gradients(peer(batch, scope, temperature), batch.embeddings)
    assert_same(gradients(ours, batch.embeddings), theirs, rtol=1e-7)


@pytest.mark.parametrize("name", PEERS)
@given(batch=anchored_batches(), temperature=TEMPERATURES)
def test_group_scope_is_theirs_on_each_group_alone(name: str, batch: Batch, temperature: float) -> None:
    """Correct rollouts alone are anchors, and their mean is taken."""
    objective, peer = PEERS[name]

    def ours(x: Tensor) -> Tensor:
        return contrastive_loss(x, batch.success, batch.ids, objective=objective, temperature=temperature)

    def theirs(x: Tensor) -> Tensor:
        losses = []
        for group in batch.ids.unique():
            rows = batch.ids == group
            part = Batch(x[rows], batch.success[rows], batch.ids[rows])
            losses.append(peer(part, "batch", temperature)(part.embeddings)[part.success])
        return torch.cat(losses).mean()

    assert_same(gradients(ours, batch.embeddings), gradients(theirs, batch.embeddings), rtol=1e-7)


@given(batch=anchored_batches(), temperature=TEMPERATURES)
def test_the_mean_over_anchors_is_theirs(batch: Batch, temperature: float) -> None:
    def ours(x: Tensor) -> Tensor:
        options = {"objective": supcon_out, "scope": "batch", "anchors": "all", "temperature": temperature}
        return contrastive_loss(x, batch.success, batch.ids, **options)

    loss = SupConLoss(temperature=temperature)
    theirs = gradients(lambda x: loss(x, batch.success.long()), batch.embeddings)
    assert_same(gradients(ours, batch.embeddings), theirs, rtol=1e-7)


# --- where its numbers break

SUCCESS, ONE_GROUP = torch.tensor([True, True, False]), torch.zeros(3, dtype=torch.long)


def test_an_embedding_of_zero_has_a_gradient_of_1e12_there() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    loss = SupConLoss(temperature=0.1)
    theirs = gradients(lambda x: loss(x, SUCCESS.long()), embeddings)[1]
    assert theirs[0].abs().max() > 1e11
    mine = gradients(lambda x: contrastive_loss(x, SUCCESS, ONE_GROUP, objective=supcon_out), embeddings)[1]
    assert mine[0].count_nonzero() == 0
    assert mine.isfinite().all()


def test_ntxent_has_a_largest_loss_without_a_gradient_there() -> None:
    """Two correct rollouts at right angles, a wrong one close to the first: 100 nats, 87 there."""
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    batch = Batch(embeddings, SUCCESS, ONE_GROUP)
    value, gradient = gradients(lambda x: ntxent(batch, "batch", 0.01)(x)[0], embeddings)
    assert_same(value, -torch.tensor(torch.finfo(torch.float32).tiny).log(), rtol=1e-6)
    assert gradient.abs().max() < 1e-3

    def ours(x: Tensor) -> Tensor:
        options = {"objective": sincere, "temperature": 0.01, "reduction": "none"}
        return contrastive_loss(x, SUCCESS, ONE_GROUP, **options)[0]

    value, gradient = gradients(ours, embeddings)
    assert_same(value, torch.tensor(100.0))
    assert_same(gradient[0], torch.tensor([0.0, -100.0]), rtol=1e-6)
