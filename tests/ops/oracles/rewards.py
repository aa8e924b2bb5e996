"""Rewards."""

from torch import Tensor

from ._common import tensor


def contrastive_reward(loss: Tensor, *, weight: float = 0.2, floor: float = -0.5) -> Tensor:
    return tensor([max(-weight * value, floor) for value in loss.tolist()])


def overlong_penalty(lengths: Tensor, *, max_length: int, buffer: int, factor: float = 1.0) -> Tensor:
    soft = max_length - buffer
    return tensor([factor * min(0.0, max(-1.0, (soft - length) / buffer)) for length in lengths.tolist()])


def token_level_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    rows = [[0.0] * mask.shape[1] for _ in mask]
    for row, reward, counts in zip(rows, rewards.tolist(), mask.tolist(), strict=True):
        valid = [t for t, own in enumerate(counts) if own]
        if valid:
            row[valid[-1]] = reward
    return tensor(rows).view(mask.shape)
