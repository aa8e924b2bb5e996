"""Rewards to advantages, and the parts of the policy's loss besides the surrogate."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipo_ops import aggregate_denominator, token_entropy
from clipo_train.config import LossConfig, RewardConfig, RolloutConfig, TrainConfig
from clipo_train.config.files import load_config
from clipo_train.objective import Credit, assign_credit, policy_loss
from clipo_train.report import load_metrics
from clipo_train.rollout import Generation, Rollouts
from clipo_train.trainer import Trainer
from clipo_train.types import Example, Verdict

CONFIG = TrainConfig(rollout=RolloutConfig(max_new_tokens=10), loss=LossConfig(advantage_scale="none"))
LENGTHS = torch.tensor([6, 8, 9, 10])
ZEROS = torch.zeros(4, 10)
RIGHT = [True, True, False, False]


def rollouts() -> Rollouts:
    mask = torch.arange(10) < LENGTHS.unsqueeze(1)
    generation = Generation(torch.zeros(4, 10, dtype=torch.int64), mask, mask, ["x"] * 4, LENGTHS < 10)
    return Rollouts([Example("q", "a", "s")] * 4, generation, [Verdict(right, float(right)) for right in RIGHT], 4)


def credit(config: TrainConfig, logprobs: torch.Tensor = ZEROS, reference: torch.Tensor | None = None) -> Credit:
    return assign_credit(rollouts(), torch.zeros(4), config, logprobs=logprobs, ref_logprobs=reference)


def test_the_overlong_penalty_is_of_the_reward_and_not_of_the_verdict() -> None:
    config = dataclasses.replace(CONFIG, reward=RewardConfig(overlong_buffer=0.4, overlong_weight=2.0))
    got = credit(config)
    assert got.overlong.tolist() == [0.0, -1.0, -1.5, -2.0]  # 4 tokens of buffer: from 7 of 10 on
    assert got.outcome.tolist() == [1, 1, 0, 0]
    assert got.total.tolist() == [1, 0, -1.5, -2]
    assert got.advantages.tolist() == pytest.approx([1.625, 0.625, -0.875, -1.375])
    assert rollouts().success.tolist() == RIGHT
    assert credit(CONFIG).overlong.eq(0).all()


@pytest.mark.parametrize(("estimator", "of"), [("k1", lambda d: d), ("k2", lambda d: d * d / 2)])
def test_the_kl_in_the_reward_is_summed_over_the_response(estimator: Any, of: Callable[[float], float]) -> None:
    differences = torch.arange(40.0).view(4, 10) / 40
    reference = torch.full((4, 10), -3.0)
    loss = LossConfig(advantage_scale="none", kl_weight=0.1, kl_estimator=estimator, kl_in="reward")
    got = credit(dataclasses.replace(CONFIG, loss=loss), reference + differences, reference)
    by_hand = [-0.1 * sum(of((row * 10 + t) / 40) for t in range(length)) for row, length in enumerate(LENGTHS)]
    assert got.kl.tolist() == pytest.approx(by_hand, abs=1e-5)
    totals = [right + kl for right, kl in zip(RIGHT, by_hand, strict=True)]
    assert got.total.tolist() == pytest.approx(totals, abs=1e-5)
    assert got.advantages.tolist() == pytest.approx([total - sum(totals) / 4 for total in totals], abs=1e-5)
    in_loss = dataclasses.replace(CONFIG, loss=dataclasses.replace(loss, kl_in="loss", kl_estimator="k3"))
    assert credit(in_loss, reference + differences, reference).kl.eq(0).all()


def test_a_kl_in_the_reward_is_not_in_the_loss_too() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(4, 10) for _ in range(3)]
    mask = rollouts().generation.response_mask
    count = aggregate_denominator(mask)

    def loss(**fields: Any) -> float:
        config = LossConfig(**fields)
        return float(policy_loss(*tensors, torch.ones(4), mask, config, denominator=count, tokens=count).loss)

    assert loss(kl_weight=0.1, kl_in="reward") == loss(kl_weight=0) < loss(kl_weight=0.1)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_the_entropy_bonus_has_the_entropys_gradient(mode: Any) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 10, 5, dtype=torch.float64, requires_grad=True)
    mask = rollouts().generation.response_mask
    config = LossConfig(entropy_weight=0.3, aggregation=mode)
    zeros = torch.zeros(4, 10, dtype=torch.float64)
    denominator = aggregate_denominator(mask, mode=mode, max_length=10)
    loss = policy_loss(
        *(zeros, zeros, None, torch.zeros(4, dtype=torch.float64), mask, config),
        denominator=denominator,
        tokens=aggregate_denominator(mask),
        entropy=token_entropy(logits, temperature=0.7),
    ).loss
    weights = {
        "token-mean": mask / mask.sum(),
        "seq-mean-token-mean": mask / LENGTHS.unsqueeze(1) / 4,
        "seq-mean-token-sum": mask / 4,
        "seq-mean-token-sum-norm": mask / 40,
    }[mode]
    probabilities = (logits / 0.7).softmax(-1)
    logs = probabilities.log()
    entropy = -(probabilities * logs).sum(-1)
    torch.testing.assert_close(loss, -0.3 * (weights * entropy).sum())
    # d H / d logit_v = -p_v (log p_v + H) / T
    expected = 0.3 * weights.unsqueeze(2) * probabilities * (logs + entropy.unsqueeze(2)) / 0.7
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)


@pytest.fixture
def train(config_file: Callable[..., Path], warm: Path, tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
    """Trains on the same first batch of rollouts, and returns the metrics of the steps."""

    def run(*arguments: str) -> list[dict[str, float]]:
        config = config_file(
            run_dir=str(tmp_path / f"run{len(list(tmp_path.iterdir()))}"),
            model={"path": str(warm)},
            rollout={"max_new_tokens": 24},
            optimizer={"minibatch_size": 16},
            clipo={"enabled": False},
            evaluation={"sets": {}},
        )
        return load_metrics(Trainer(load_config(config, arguments)).train().parent)[1:]

    return run


def test_the_entropy_bonus_raises_the_entropy(train: Callable[..., list[dict[str, float]]]) -> None:
    plain, bonus = train(), train("--loss.entropy_weight", "5")
    assert bonus[0]["policy/entropy"] == pytest.approx(plain[0]["policy/entropy"])
    assert bonus[1]["policy/entropy"] > plain[1]["policy/entropy"] + 0.02
    expected = plain[0]["policy/loss"] - 5 * plain[0]["policy/entropy"]
    assert bonus[0]["policy/loss"] == pytest.approx(expected, rel=1e-4)


def test_every_epoch_is_a_pass_in_an_order_of_its_own(
    train: Callable[..., list[dict[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipo_train.learner import Learner

    batches: list[list[int]] = []
    accumulate = Learner._accumulate

    def recorded(self: Learner, generation: Any, scores: Any, given: Any, rows: torch.Tensor) -> torch.Tensor:
        batches.append(rows.tolist())
        return accumulate(self, generation, scores, given, rows)

    monkeypatch.setattr(Learner, "_accumulate", recorded)
    arguments = ["--optimizer.minibatch_size", "8", "--optimizer.epochs", "3", "--optimizer.schedule", "linear"]
    steps = train(*arguments)
    assert len(batches) == 2 * 3 * 2  # steps, epochs, mini-batches
    passes = [batches[start] + batches[start + 1] for start in range(0, 12, 2)]
    assert all(sorted(order) == list(range(16)) for order in passes)
    assert len({tuple(order) for order in passes}) == 6
    # The schedule goes by updates: half way after the first of two steps, and at 0 after the last.
    assert [step["policy/learning_rate"] for step in steps] == pytest.approx([5e-4, 0])
    assert steps[0]["policy/approx_kl"] > 0


def test_warm_up_steps_take_nothing_of_the_schedule(train: Callable[..., list[dict[str, float]]]) -> None:
    steps = train("--clipo.enabled", "true", "--clipo.warmup_steps", "1", "--optimizer.schedule", "linear")
    assert "policy/learning_rate" not in steps[0]
    assert steps[1]["policy/learning_rate"] == 0


def test_penalties_are_logged_and_add_up(train: Callable[..., list[dict[str, float]]]) -> None:
    kl = ["--loss.kl_weight", "0.1", "--loss.kl_estimator", "k2", "--loss.kl_in", "reward"]
    first, second = train("--reward.overlong_buffer", "0.5", *kl)
    assert first["reward/kl"] == pytest.approx(0, abs=1e-6)  # the policy is the reference yet
    assert second["reward/kl"] < 0
    assert -1 < second["reward/overlong"] < 0
    parts = [second[f"reward/{name}"] for name in ("outcome", "contrastive", "overlong", "kl")]
    assert second["reward/total"] == pytest.approx(sum(parts), abs=1e-5)
    assert second["rollout/accuracy"] == second["reward/outcome"]
