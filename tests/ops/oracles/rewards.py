"""Rewards."""

from torch import Tensor

from ._common import tensor


def contrastive_reward(loss: Tensor, *, weight: float = 0.2, floor: float = -0.5) -> Tensor:
    return tensor([max(-weight * value, floor) for value in loss.tolist()])
