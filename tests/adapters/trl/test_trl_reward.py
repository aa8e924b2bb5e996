"""The contrastive column among TRL's rewards is that of clipo_ops, on the same rollouts."""

from collections.abc import Callable
from typing import Any


def test_a_small_policy_trains(build: Callable[..., Any]) -> None:
    trainer = build()
    trainer.train()
    for row in trainer.state.log_history:
        print(row)
