"""Whole steps with OpenRLHF's own policy workers: DeepSpeed's engine, its update and its checkpoints, on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from openrlhf.models import Actor
from openrlhf.trainer.ray.launcher import RayActorGroup
from openrlhf.utils.utils import get_strategy
from torch import Tensor

from clipo_ops import contrastive_loss, contrastive_reward, supcon_out
from clipo_train.adapters.openrlhf import ClipoPPOTrainer

from .conftest import GROUP, ROLLOUTS, alone, rollouts

STATE = {"episode": 0, "global_step": 1, "total_consumed_prompts": 6, "data_loader_state_dict": {}}


@pytest.fixture(scope="module")
def group(_ray: None) -> RayActorGroup:
    from host_policy import HostPolicy

    return RayActorGroup(1, 2, ray.remote(num_gpus=1)(HostPolicy))


@pytest.fixture
def build(group: RayActorGroup, arguments: Callable[..., Any], policy: Path, tmp_path: Path) -> Callable[..., Any]:
    """A trainer, with the workers initialised anew: from the model's folder, or from a checkpoint if told to."""

    def build(*flags: str, **settings: Any) -> ClipoPPOTrainer:
        sizes = {"train__batch_size": ROLLOUTS, "train__micro_batch_size": 4, "rollout__micro_batch_size": 6}
        learning = {"actor__adam__lr": 1e-2, "actor__lr_warmup_ratio": 0, "ds__attn_implementation": "eager"}
        saving = {"ckpt__path": tmp_path, "ckpt__save_steps": 1}
        args = arguments("--data.disable_fast_tokenizer", *flags, **sizes, **learning, **saving, **settings)
        strategy = get_strategy(args)
        ray.get(group.async_init_model_from_pretrained(strategy, str(policy), 10, None))
        return ClipoPPOTrainer(str(policy), strategy, group, None, None, None, None, do_sample=True)

    return build


def weights(trainer: Any) -> Tensor:
    first, second = ray.get(trainer.actor_model_group.async_run_method(method_name="weights"))
    assert first.equal(second)
    return first


def test_a_step_rewards_as_clipo_ops_does_and_updates_the_policy(build: Any, policy: Path) -> None:
    trainer, samples = build(), rollouts()
    head = trainer.experience_maker.head.projection.weight.detach().clone()
    pooled = alone(Actor(str(policy), attn_implementation="eager").model.eval(), samples).float()
    right = torch.cat([sample.scores for sample in samples]) > 0.5
    groups = torch.arange(ROLLOUTS) // GROUP
    loss = contrastive_loss(pooled @ head.T, right, groups, objective=supcon_out, temperature=0.05, reduction="none")
    wanted = contrastive_reward(loss, weight=0.2, floor=-0.5).mean().item()
    before = weights(trainer)
    status, _ = trainer.train_step(samples, 0)
    assert status["reward/contrastive"] == pytest.approx(wanted, rel=0.02)  # in bfloat16, padded or not
    assert status["actor_grad_norm"] > 0
    assert not weights(trainer).equal(before)


def test_in_the_heads_warm_up_the_policy_stays(build: Any) -> None:
    trainer = build(clipo__warmup_steps=1)
    before = weights(trainer)
    trainer.train_step(rollouts(), 0)
    assert weights(trainer).equal(before)
    trainer.train_step(rollouts(1), 1)
    assert not weights(trainer).equal(before)


def test_deepspeeds_checkpoint_has_the_head_and_a_resumed_run_goes_on_with_it(build: Any) -> None:
    first = build(clipo__objective="infonce")  # which draws
    first.train_step(rollouts(), 0)
    saved = weights(first)
    first.save_logs_and_checkpoints(1, {}, dict(STATE))
    first.train_step(rollouts(1), 1)

    second = build("--ckpt.load_enable", clipo__objective="infonce", train__seed=7)
    assert weights(second).equal(saved)
    assert second.init_checkpoint_states().items() >= STATE.items()
    assert second.experience_maker.head.steps == 1
    second.train_step(rollouts(1), 1)
    assert second.experience_maker.metrics == first.experience_maker.metrics
    one, other = first.experience_maker.head.state_dict(), second.experience_maker.head.state_dict()
    torch.testing.assert_close(one, other, atol=0.0, rtol=0.0)
