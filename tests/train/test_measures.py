"""What is said of a step's credit, and how a subclass of the trainer changes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipo_train.config.files import load_config
from clipo_train.learner import Scores
from clipo_train.measures import describe, describe_process
from clipo_train.objective import Credit
from clipo_train.report import load_metrics
from clipo_train.rollout import Generation, Rollouts
from clipo_train.trainer import Trainer
from clipo_train.types import Example, Verdict

PROCESS: list[bool | None] = [True, True, False, False]


def rollouts(process: list[bool | None] = PROCESS) -> Rollouts:
    mask = torch.ones(4, 1, dtype=torch.bool)
    generation = Generation(mask.long(), mask, mask, ["x"] * 4, mask[:, 0])
    verdicts = [Verdict(place < 3, float(place < 3), process=judged) for place, judged in enumerate(process)]
    return Rollouts([Example("q", "a", "s")] * 4, generation, verdicts, 4)


def credit(contrastive: list[float], advantages: list[float]) -> Credit:
    zeros = torch.zeros(4)
    return Credit(zeros, torch.tensor(contrastive).float(), zeros, zeros, zeros, torch.tensor(advantages).float())


SCORES = Scores(torch.zeros(4, 1), torch.zeros(4, 1), None, None)


def test_it_counts_who_gets_a_signal_and_which_right_ones_are_made_less_likely() -> None:
    metrics = describe(rollouts(), SCORES, credit([0] * 4, [0.5, -0.1, 0.0, -0.4]))
    assert metrics["advantage/nonzero"] == 0.75
    assert metrics["advantage/negative_among_right"] == pytest.approx(1 / 3)


def test_it_tells_whether_the_reward_favours_right_steps() -> None:
    metrics = describe_process(rollouts(), credit([-0.1, -0.3, -0.2, 0.0], [0.6, 0.2, 0.1, -1.0]))
    assert metrics == {
        "contrastive/process_gap": pytest.approx(0.0, abs=1e-6),  # (.1 - .1) / 2
        "contrastive/process_auc": 0.5,
        "advantage/process_gap": pytest.approx(0.3),
    }


def test_it_is_silent_without_a_reward_or_a_judge_of_steps() -> None:
    assert describe_process(rollouts(), credit([0] * 4, [1, 0, 0, -1])) == {}
    assert describe_process(rollouts([None] * 4), credit([-0.1, 0, 0, 0], [1, 0, 0, -1])) == {}


class FirstTokenTrainer(Trainer):
    """Pools the first token's state only, and takes off a tenth of every right answer's reward."""

    def pool(self, hidden: Tensor, generation: Generation) -> Tensor:
        return hidden[:, 0]

    def contrastive_rewards(self, rollouts: Rollouts, scores: Scores) -> Tensor:
        assert scores.pooled is not None
        assert scores.pooled.shape == (16, 64)
        return -0.1 * torch.ones(16)


def test_a_subclass_has_a_reward_of_its_own(config_file: Callable[..., Path]) -> None:
    config = load_config(config_file(clipo={"enabled": False}, evaluation={"initial": False}))
    FirstTokenTrainer(config).train()
    steps = load_metrics(config.run_dir)
    assert [row["step"] for row in steps] == [1, 2]  # nothing was evaluated before
    for row in steps:
        assert row["reward/contrastive"] == pytest.approx(-0.1)
        assert row["reward/total"] == pytest.approx(row["reward/outcome"] - 0.1)
