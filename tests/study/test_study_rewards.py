"""The rewards of a study's arms: what a control keeps and what it breaks."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipo_ops import contrastive_anchors, contrastive_loss, contrastive_reward, mean_pool, supcon_in
from clipo_train.head import ClipoHead
from clipo_train.rollout import Generation, Rollouts
from clipo_train.study.config import load_study, plan_run
from clipo_train.study.rewards import REWARDS
from clipo_train.study.trainer import StudyTrainer
from clipo_train.types import Example, Verdict

SIZE = 8
SUCCESS = [True] * 5 + [False] * 3 + [True] * 8 + [True] + [False] * 7 + [True, True] + [False] * 6
PROCESS = [right and place % 3 > 0 for place, right in enumerate(SUCCESS)]
MIXED = torch.tensor([0] * SIZE + [1] * SIZE + [0] * 2 * SIZE) == 0


@pytest.fixture
def trainer(study_file: Callable[..., Path], tmp_path: Path) -> StudyTrainer:
    study = load_study(study_file())
    return StudyTrainer(plan_run(study, "clipo", 0).config, "head")


@pytest.fixture
def states() -> Tensor:
    """Near each other, as a model's are: cosines of about .98."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, generator=generator) + torch.randn(len(SUCCESS), 7, 64, generator=generator) / 7


def rollouts() -> Rollouts:
    count = len(SUCCESS)
    mask = torch.ones(count, 1, dtype=torch.bool)
    generation = Generation(torch.zeros(count, 1, dtype=torch.long), mask, mask, ["x"] * count, mask[:, 0])
    verdicts = [Verdict(s, float(s), process=p) for s, p in zip(SUCCESS, PROCESS, strict=True)]
    return Rollouts([Example("1+1=", "2", "s")] * count, generation, verdicts, SIZE)


def fresh_head(trainer: StudyTrainer, objective: str) -> ClipoHead:
    return ClipoHead(64, dataclasses.replace(trainer.config.clipo, objective=objective), seed=0, device="cpu")


def rewards(name: str, trainer: StudyTrainer, states: Tensor, *, seed: int = 0, objective: str = "infonce") -> Tensor:
    """Of a head that has not learnt yet, with the draws of this seed."""
    trainer.head = fresh_head(trainer, objective)
    trainer.generator.manual_seed(seed)
    return REWARDS[name](trainer, rollouts(), states)


ANCHORS = contrastive_anchors(torch.tensor(SUCCESS), rollouts().groups)


def test_no_reward_is_none(trainer: StudyTrainer, states: Tensor) -> None:
    assert not rewards("none", trainer, states).any()


def test_shuffled_rewards_are_the_same_numbers_of_the_same_anchors(trainer: StudyTrainer, states: Tensor) -> None:
    own, dealt = rewards("head", trainer, states), rewards("shuffled", trainer, states)
    assert not torch.equal(own, dealt)
    for place in range(0, len(SUCCESS), SIZE):
        group = slice(place, place + SIZE)
        assert torch.equal(own[group].sort().values, dealt[group].sort().values)
    assert not dealt[~ANCHORS].any()
    assert torch.equal(dealt != 0, own != 0)


def test_every_order_is_as_likely(trainer: StudyTrainer, states: Tensor) -> None:
    own = rewards("head", trainer, states)
    dealt = torch.stack([rewards("shuffled", trainer, states, seed=seed) for seed in range(400)])
    expected = own[:5].mean().expand(5)
    torch.testing.assert_close(dealt[:, :5].mean(0), expected, atol=4 * float(own[:5].std()) / 400**0.5, rtol=0)


def test_noise_has_the_mean_and_the_variance_of_each_group(trainer: StudyTrainer, states: Tensor) -> None:
    own = rewards("head", trainer, states)
    drawn = torch.stack([rewards("noise", trainer, states, seed=seed) for seed in range(2000)])
    assert not drawn[:, ~ANCHORS].any()
    for group in (slice(0, 5), slice(24, 26)):
        mean, deviation = own[group].mean(), own[group].std(correction=0)
        torch.testing.assert_close(drawn[:, group].mean(), mean, atol=float(deviation) / 10, rtol=0)
        torch.testing.assert_close(drawn[:, group].std(), deviation, atol=1e-6, rtol=0.05)


def test_the_oracle_knows_the_process(trainer: StudyTrainer, states: Tensor) -> None:
    expected = torch.tensor([-0.5 * (s and not p) for s, p in zip(SUCCESS, PROCESS, strict=True)])
    assert torch.equal(rewards("oracle", trainer, states), expected)
    assert torch.equal(rewards("oracle_mixed", trainer, states), torch.where(MIXED, expected, 0))


def test_all_correct_groups_are_let_in_and_others_are_as_before(trainer: StudyTrainer, states: Tensor) -> None:
    own, more = (rewards(name, trainer, states, objective="supcon_in") for name in ("head", "all_correct"))
    torch.testing.assert_close(more[MIXED], own[MIXED])
    assert not own[~MIXED].any()
    # Without a negative, the log of the mean over 7 positives of their own softmax is -log 7 for all.
    torch.testing.assert_close(more[~MIXED], torch.full((SIZE,), -0.2 * math.log(7)))


def test_centred_states_are_what_the_head_gets(trainer: StudyTrainer, states: Tensor) -> None:
    shifted = states + torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(1)).repeat_interleave(SIZE, 0)
    torch.testing.assert_close(
        rewards("centered", trainer, shifted), rewards("centered", trainer, states), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(rewards("head", trainer, shifted), rewards("head", trainer, states), atol=1e-3)


def test_the_head_s_reward_is_clipo_s(trainer: StudyTrainer, states: Tensor) -> None:
    got = rewards("head", trainer, states, objective="supcon_in")
    embeddings = fresh_head(trainer, "supcon_in").projection(states[:, 0]).detach()
    loss = contrastive_loss(embeddings, torch.tensor(SUCCESS), rollouts().groups, objective=supcon_in, reduction="none")
    torch.testing.assert_close(got, contrastive_reward(loss))


def test_states_are_pooled_by_response_and_by_step(trainer: StudyTrainer) -> None:
    vocabulary = trainer.learner.tokenizer.get_vocab()
    texts = ["1+1=2;2#2", "3#", "1;2;3;4;5;6;7;8"]
    width = max(map(len, texts))
    tokens = torch.tensor(
        [[vocabulary[c] for c in text] + [vocabulary["<pad>"]] * (width - len(text)) for text in texts]
    )
    mask = torch.tensor([[place < len(text) for place in range(width)] for text in texts])
    generation = Generation(tokens, mask, mask, texts, mask[:, 0])
    hidden = torch.randn(3, width, 4, generator=torch.Generator().manual_seed(0))
    pooled = trainer.pool(hidden, generation)
    torch.testing.assert_close(pooled[:, 0], mean_pool(hidden, mask))
    assert pooled.shape == (3, 7, 4)
    torch.testing.assert_close(pooled[0, 1], hidden[0, :6].mean(0))  # "1+1=2;"
    torch.testing.assert_close(pooled[0, 2], hidden[0, 6:8].mean(0))  # "2#"
    torch.testing.assert_close(pooled[0, 3], hidden[0, 8])  # "2"
    assert not pooled[0, 4:].any()
    torch.testing.assert_close(pooled[2, 6], hidden[2, 10:].mean(0))  # what is too much goes to the last
