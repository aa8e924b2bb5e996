"""Correct and incorrect rollouts of each group."""

from torch import Tensor

from clipo_ops._groups import GroupLayout


def verdicts(success: Tensor, counts: Tensor, layout: GroupLayout) -> tuple[Tensor, Tensor]:
    """The slots of correct and of incorrect rollouts, among those that count."""
    correct = layout.gather(success & counts) & layout.valid
    incorrect = layout.gather(success.logical_not() & counts) & layout.valid
    return correct, incorrect
