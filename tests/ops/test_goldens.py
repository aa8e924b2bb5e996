"""Parity with the official CLIPO code (13c5fd6), on inputs where its epsilon does no harm.

`official_contrastive.json` holds the outputs of its `supcon_loss` in float64: value per rollout, mean over anchors and
gradient of the mean, by loss, level, distance and kind of anchors. Its gradient is with respect to embeddings that are
taken to have length one; ours normalises them, and so has that gradient's part orthogonal to the embedding.
"""

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipo_ops import contrastive_loss, infonce, soft_nearest_neighbor, supcon_in, supcon_out

OBJECTIVES = {
    "infonce_loss": infonce,
    "supcon_loss_out": supcon_out,
    "supcon_loss_in": supcon_in,
    "soft_nn_loss": soft_nearest_neighbor,
}
GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "official_contrastive.json").read_text())
SIMILARITIES = {"cosine_distance": "cosine", "l2_distance": "l2"}
WHOLE = [case for case in GOLDENS if not case.get("ignore_groups")]  # else a mean holds losses that were drawn


def name(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("loss_type", "level", "distance", "anchors", "temperature"))


def options(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "objective": OBJECTIVES[case["loss_type"]],
        "scope": case["level"],
        "anchors": case["anchors"],
        "similarity": SIMILARITIES[case["distance"]],
        "temperature": case["temperature"],
    }


def inputs(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    embeddings = torch.tensor(case["embeddings"], dtype=torch.float64, requires_grad=True)
    return embeddings, torch.tensor(case["success"]).bool(), torch.tensor(case["group_ids"])


def test_the_goldens_are_of_every_level_distance_and_kind_of_anchors() -> None:
    kinds = Counter((case["level"], case["distance"], case["anchors"]) for case in GOLDENS)
    assert len(GOLDENS) == 120
    assert len(WHOLE) == 114
    assert set(kinds) == set(product(["group", "cross", "batch"], SIMILARITIES, ["success", "all"]))


@pytest.mark.parametrize("case", GOLDENS, ids=name)
def test_losses_are_the_official_ones(case: dict[str, Any]) -> None:
    losses = contrastive_loss(*inputs(case), **options(case), reduction="none")
    certain = torch.tensor([i not in (case.get("ignore_groups") or []) for i in case["group_ids"]])
    assert certain.sum() > 0
    expected = torch.tensor(case["per_rollout"], dtype=torch.float64)
    torch.testing.assert_close(losses[certain], expected[certain], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", WHOLE, ids=name)
def test_mean_and_gradient_are_the_official_ones(case: dict[str, Any]) -> None:
    embeddings, success, groups = inputs(case)
    mean = contrastive_loss(embeddings, success, groups, **options(case))
    (grad,) = torch.autograd.grad(mean, embeddings)
    assert mean.item() == pytest.approx(case["mean"], abs=1e-6)
    unit, official = embeddings.detach(), torch.tensor(case["grad"], dtype=torch.float64)
    orthogonal = official - (official * unit).sum(1, keepdim=True) * unit
    torch.testing.assert_close(grad, orthogonal, rtol=0, atol=1e-6)
