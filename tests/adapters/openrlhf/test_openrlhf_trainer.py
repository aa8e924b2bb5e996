"""OpenRLHF's trainers with workers in a local Ray: steps, logs, the head's warm-up and its checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.utils.deepspeed import DeepspeedStrategy

from clipo_train.adapters.openrlhf import ClipoPPOTrainer, ClipoPPOTrainerAsync
from clipo_train.adapters.openrlhf.policy import behind_remote
from clipo_train.errors import ConfigError

from .conftest import ROLLOUTS, rollouts

GLOSSARY = Path(__file__).parents[3] / "docs" / "metrics.md"

STATE = {"episode": 0, "global_step": 1, "total_consumed_prompts": 6, "data_loader_state_dict": {}}


@pytest.fixture
def build(arguments: Callable[..., Any], workers: Any, policy: Path) -> Callable[..., Any]:
    def build(*flags: str, cls: Any = ClipoPPOTrainer, **settings: Any) -> Any:
        args = arguments("--data.disable_fast_tokenizer", *flags, **settings)
        return cls(str(policy), DeepspeedStrategy(args=args), workers, None, None, None, None, do_sample=True)

    return build


def test_a_step_gives_all_rollouts_to_the_workers_and_logs_what_the_glossary_has(build: Any) -> None:
    trainer = build()
    status, step = trainer.train_step(rollouts(), 0)
    status, step = trainer.train_step(rollouts(1), step)
    assert step == 2
    assert status["items"] == ROLLOUTS - 15  # of the last worker: what three micro-batches leave
    assert status["rollout/reward_mean"] == status["rollout/accuracy"] > 0
    assert status["reward/contrastive"] < 0
    glossary = GLOSSARY.read_text(encoding="utf-8")
    names = [name for name in status if name.startswith("contrastive/")] + ["reward/contrastive", "rollout/accuracy"]
    assert len(names) == 7
    for name in names:
        assert f"`{name}`" in glossary


def test_in_its_warm_up_the_head_learns_and_the_policy_does_not(build: Any) -> None:
    trainer = build(clipo__warmup_steps=2)
    for step in range(2):
        before = trainer.experience_maker.head.projection.weight.clone()
        status, after = trainer.train_step(rollouts(step), step)
        assert after == step + 1
        assert not trainer.experience_maker.head.projection.weight.equal(before)
        assert status["rollout/accuracy"] > 0
        assert "items" not in status
    assert trainer.train_step(rollouts(2), 2)[0]["items"] == ROLLOUTS - 15  # none of those before


def resumable(build: Any, tmp_path: Path, **settings: Any) -> Any:
    """A trainer that finds the workers' last checkpoint."""
    (tmp_path / "_actor").mkdir(exist_ok=True)
    return build("--ckpt.load_enable", ckpt__path=tmp_path, ckpt__save_steps=1, **settings)


@pytest.mark.parametrize("best", [False, True])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(build: Any, tmp_path: Path, best: bool) -> None:
    first = resumable(build, tmp_path, clipo__objective="infonce")  # which draws
    first.train_step(rollouts(), 0)
    if best:
        first.save_best_checkpoint({"eval_sums_pass1": 1.0}, 1, dict(STATE))
    else:
        first.save_logs_and_checkpoints(1, {}, dict(STATE))
    first.train_step(rollouts(1), 1)

    second = resumable(build, tmp_path, clipo__objective="infonce", train__seed=7)
    states = second.init_checkpoint_states()
    assert states.items() >= STATE.items()
    assert "clipo_head" not in states
    assert second.experience_maker.head.steps == 1
    second.train_step(rollouts(1), 1)
    assert second.experience_maker.metrics == first.experience_maker.metrics
    one, other = first.experience_maker.head.state_dict(), second.experience_maker.head.state_dict()
    torch.testing.assert_close(one, other, atol=0.0, rtol=0.0)


def test_a_run_without_a_checkpoint_begins_anew(build: Any, tmp_path: Path) -> None:
    trainer = build("--ckpt.load_enable", ckpt__path=tmp_path)
    assert trainer.init_checkpoint_states()["global_step"] == trainer.experience_maker.head.steps == 0


def test_a_checkpoint_without_a_head_or_with_another_is_refused(build: Any, tmp_path: Path) -> None:
    own = behind_remote(PPOTrainer)
    resumable(build, tmp_path, cls=own).save_logs_and_checkpoints(1, {}, dict(STATE))
    with pytest.raises(ConfigError, match=r"^ckpt.load_enable: expected a checkpoint with a head, got one without; "):
        resumable(build, tmp_path).init_checkpoint_states()
    resumable(build, tmp_path).save_logs_and_checkpoints(1, {}, dict(STATE))
    with pytest.raises(ConfigError, match=r"^clipo.dim, clipo.head: expected a head of shape \[\(4, "):
        resumable(build, tmp_path, clipo__dim=4).init_checkpoint_states()


def test_the_asynchronous_trainer_has_a_head_in_its_training_process(build: Any) -> None:
    settings = {"train__async_queue_size": 1}
    trainer = build("--train.async_enable", cls=ClipoPPOTrainerAsync, **settings)
    status, step = ray.get(trainer.trainer_actor.train_step.remote(rollouts(), 0))
    assert step == 1
    assert status["contrastive/anchor_fraction"] > 0
    assert status["reward/contrastive"] < 0
