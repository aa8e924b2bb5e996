"""The rewards of a study's arms: CLIPO's own, controls that break one thing about it, and variants.

A reward is a function of the trainer, the step's rollouts and their states: rollouts x (1 + steps) x hidden, the mean
over a response and then over each of its steps.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops import GroupLayout, center_by_group, contrastive_anchors, informative_groups
from clipo_ops.experimental import consensus_reward
from clipo_train.rollout import Rollouts

if TYPE_CHECKING:
    from clipo_train.study.trainer import StudyTrainer

States: TypeAlias = Float[Tensor, "rollouts parts hidden"]

Reward: TypeAlias = "Callable[[StudyTrainer, Rollouts, States], Float[Tensor, ' rollouts']]"
"""Called once a step; it may take a step of the trainer's head, and draw from `trainer.generator`."""

_LOST = 0.5
"""The most that the oracle and the variants take off: CLIPO's floor."""


def none(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """The outcome alone."""
    return torch.zeros_like(rollouts.outcome)


def head(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """CLIPO, as the arm's `clipo` section has it."""
    return trainer.head_step(states[:, 0], rollouts.success, rollouts.groups)


def shuffled(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """CLIPO's rewards, dealt out anew among the anchors of each group: the same numbers, and no information."""
    return _dealt(head(trainer, rollouts, states), _anchors(rollouts), trainer, rollouts)


def noise(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """Gaussian noise of the mean and variance that CLIPO's rewards have over the anchors of each group."""
    rewards = head(trainer, rollouts, states)
    laid_out, anchors = _by_group(rewards, rollouts), _by_group(_anchors(rollouts), rollouts)
    count = anchors.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(anchors, laid_out, 0).sum(1, keepdim=True) / count
    deviation = (torch.where(anchors, laid_out - mean, 0).square().sum(1, keepdim=True) / count).sqrt()
    draw = torch.randn(laid_out.shape, generator=trainer.generator, device=laid_out.device)
    return torch.where(anchors, mean + deviation * draw, 0).flatten()


def oracle(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """The verifier's own word: -.5 for a right answer that was reached by a wrong step. What no head can beat."""
    process = torch.tensor([bool(verdict.process) for verdict in rollouts.verdicts], device=states.device)
    return torch.where(rollouts.success & ~process, -_LOST, 0.0)


def oracle_mixed(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """The oracle in groups with a wrong rollout: where CLIPO speaks."""
    return _mixed(oracle(trainer, rollouts, states), rollouts)


def centered(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """CLIPO on states less their group's mean: the paper's unused "debias"."""
    return trainer.head_step(center_by_group(states[:, 0], rollouts.groups), rollouts.success, rollouts.groups)


def all_correct(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """CLIPO that lets all-correct groups in, each with an imagined wrong rollout opposite to its mean.

    It adds nothing to the loss: states of one prompt are so near each other (cosines of .98) that it is far from all.
    """
    count = len(rollouts.verdicts)
    whole = _by_group(rollouts.success, rollouts).all(1).nonzero().flatten()
    means = states[:, 0].unflatten(0, (-1, rollouts.group_size)).mean(1)
    ids = torch.arange(count, device=states.device) // rollouts.group_size
    rewards = trainer.head_step(
        torch.cat([states[:, 0], -means[whole]]),
        torch.cat([rollouts.success, torch.zeros_like(whole, dtype=torch.bool)]),
        GroupLayout.from_ids(torch.cat([ids, whole])),
    )
    return rewards[:count]


def consensus_mixed(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """`consensus_reward` of the pooled states, in groups with a wrong rollout."""
    return _mixed(consensus(trainer, rollouts, states), rollouts)


def consensus(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """`consensus_reward` of the pooled states, in all groups."""
    return consensus_reward(states[:, :1], rollouts.success, rollouts.groups, weight=_LOST)


def consensus_steps(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """`consensus_reward` of states pooled by step."""
    return consensus_reward(states[:, 1:], rollouts.success, rollouts.groups, weight=_LOST)


def consensus_gate(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """As `consensus_steps`, but all or nothing: -.5 for outliers."""
    return consensus_reward(states[:, 1:], rollouts.success, rollouts.groups, weight=_LOST, gate=0.5)


def consensus_shuffled(trainer: "StudyTrainer", rollouts: Rollouts, states: States) -> Tensor:
    """`consensus_steps`, dealt out anew among the correct rollouts of each group."""
    return _dealt(consensus_steps(trainer, rollouts, states), rollouts.success, trainer, rollouts)


REWARDS: dict[str, Reward] = {
    rule.__name__: rule
    for rule in (
        none,
        head,
        shuffled,
        noise,
        oracle,
        oracle_mixed,
        centered,
        all_correct,
        consensus_mixed,
        consensus,
        consensus_steps,
        consensus_gate,
        consensus_shuffled,
    )
}

WITH_HEAD = {rule.__name__ for rule in (head, shuffled, noise, centered, all_correct)}
"""Those that take steps of a head."""


def _mixed(rewards: Tensor, rollouts: Rollouts) -> Tensor:
    return torch.where(informative_groups(rollouts.success, rollouts.groups), rewards, 0)


def _dealt(rewards: Tensor, among: Tensor, trainer: "StudyTrainer", rollouts: Rollouts) -> Tensor:
    """The rewards of a group's chosen rollouts in a random order; 0 for the others."""
    laid_out, chosen = _by_group(rewards, rollouts), _by_group(among, rollouts)
    draw = torch.rand(laid_out.shape, generator=trainer.generator, device=laid_out.device)
    source = torch.where(chosen, draw, 2).argsort(1)  # the chosen first
    target = chosen.logical_not().int().argsort(dim=1, stable=True)
    return torch.zeros_like(laid_out).scatter(1, target, laid_out.gather(1, source)).flatten()


def _anchors(rollouts: Rollouts) -> Bool[Tensor, " rollouts"]:
    return contrastive_anchors(rollouts.success, rollouts.groups)


def _by_group(values: Tensor, rollouts: Rollouts) -> Tensor:
    return values.view(-1, rollouts.group_size)
