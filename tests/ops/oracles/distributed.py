"""Rollouts of several processes."""

import torch
from torch import Tensor

from ..examples import case


def gather_rollouts(*ranks: Tensor) -> Tensor:
    """Of all ranks' rollouts, in order of rank."""
    return torch.tensor([row for values in ranks for row in values.tolist()], dtype=ranks[0].dtype)


CASES = [
    case("gather_rollouts", "values=embeddings"),
]
