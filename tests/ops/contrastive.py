"""The contrastive loss per rollout, its gradient and its oracle, of a `Batch`."""

from typing import Any

import pytest
from torch import Tensor

from clipo_ops import centroid, contrastive_loss, dcl, sincere, soft_nearest_neighbor, supcon_in, supcon_out

from . import oracles
from .helpers import gradients
from .strategies import Batch

EXACT = [supcon_out, supcon_in, soft_nearest_neighbor, sincere, dcl, centroid]
SCOPES = ["group", "cross", "batch"]
every_scope = pytest.mark.parametrize("scope", SCOPES)
every_objective = pytest.mark.parametrize("objective", EXACT, ids=lambda objective: objective.__name__)


def oracle(batch: Batch, objective: Any, temperature: float = 0.05, **options: Any) -> Tensor:
    row = getattr(oracles, objective.__name__)
    return oracles.contrastive_loss(*batch, objective=row, temperature=temperature, **options)


def losses(batch: Batch, objective: Any = supcon_out, **options: Any) -> Tensor:
    return contrastive_loss(*batch, objective=objective, reduction="none", **options)


def losses_and_gradient(batch: Batch, objective: Any = supcon_out, **options: Any) -> tuple[Tensor, ...]:
    return gradients(lambda z: losses(batch._replace(embeddings=z), objective, **options), batch.embeddings)
