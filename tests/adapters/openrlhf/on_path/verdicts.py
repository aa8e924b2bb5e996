"""Functions for `--clipo.success_fn`."""

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from torch import Tensor

not_a_function = 1


def short(experience: Experience) -> Tensor:
    """A notion of right that is not the score's."""
    return experience.total_length < 10


def scores(experience: Experience) -> Tensor:
    """No verdicts."""
    return experience.scores


def flat(experience: Experience) -> Tensor:
    """One verdict for all."""
    return torch.tensor(True)
