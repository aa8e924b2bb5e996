"""OpenRLHF's experience maker with workers in a local Ray: rewards and advantages, next to `clipo_ops`."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
from openrlhf.utils.deepspeed import DeepspeedStrategy
from torch import Tensor
from transformers import AutoModelForCausalLM

from clipo_ops import contrastive_loss, contrastive_reward, supcon_out
from clipo_train.adapters.openrlhf import ClipoExperienceMaker
from clipo_train.errors import ConfigError

from .conftest import GROUP, ROLLOUTS, alone, rollouts

TINY = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture
def build(arguments: Callable[..., Any], workers: Any) -> Callable[..., ClipoExperienceMaker]:
    def build(*flags: str, **settings: Any) -> ClipoExperienceMaker:
        strategy = DeepspeedStrategy(args=arguments(*flags, **settings))
        tokenizer = SimpleNamespace(pad_token_id=15)
        return ClipoExperienceMaker(workers, None, None, None, FixedKLController(0), strategy, tokenizer)

    return build


def outcomes(samples: list[Experience]) -> Tensor:
    return torch.cat([sample.rewards for sample in samples])


def expected(maker: ClipoExperienceMaker, policy: Path, samples: list[Experience]) -> Tensor:
    """Contrastive rewards by `clipo_ops`, each rollout alone through the policy."""
    embeddings = alone(AutoModelForCausalLM.from_pretrained(policy), samples) @ maker.head.projection.weight.detach().T
    groups = torch.arange(ROLLOUTS) // GROUP
    loss = contrastive_loss(
        embeddings, outcomes(samples) > 0.5, groups, objective=supcon_out, temperature=0.05, reduction="none"
    )
    rewards = contrastive_reward(loss, weight=0.2, floor=-0.5)
    assert (rewards < -0.01).sum() > 5
    return rewards


def in_order(experiences: list[Experience], values: list[Tensor]) -> Tensor:
    """By the rollouts' places, whatever micro-batch they were in."""
    places = torch.tensor([place for experience in experiences for place in experience.index])
    assert sorted(places.tolist()) == list(range(ROLLOUTS))
    return torch.cat(values)[places.argsort()]


def both(experiences: list[Experience]) -> tuple[Tensor, Tensor]:
    """The rewards that advantages were taken from, and those of the outcome."""
    total = in_order(experiences, [experience.rewards for experience in experiences])
    return total, in_order(experiences, [experience.info["reward"] for experience in experiences])


@pytest.mark.parametrize("flags", [(), ("--train.dynamic_batch_enable", "--vllm.num_engines", "1")])
def test_rewards_are_those_of_clipo_ops_with_groups_astride_micro_batches_and_workers(
    build: Any, policy: Path, flags: tuple[str, ...]
) -> None:
    # Micro-batches of 5 with groups of 4, the first 15 rollouts on one worker; or whatever the lengths make of it.
    maker, samples = build(*flags, rollout__max_tokens_per_gpu=40), rollouts()
    wanted, outcome = expected(maker, policy, samples), outcomes(samples)
    experiences = maker.make_experience_batch(samples)
    straddling = [len({place // GROUP for place in e.index}) * GROUP > len(e.index) for e in experiences]
    assert len(experiences) > 2
    assert any(straddling)
    total, logged = both(experiences)
    torch.testing.assert_close(total - outcome, wanted, **TINY)
    assert logged.equal(outcome)


def test_advantages_are_of_the_sum(build: Any, policy: Path) -> None:
    maker, samples = build(), rollouts()
    groups = (outcomes(samples) + expected(maker, policy, samples)).view(-1, GROUP)
    wanted = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-9)).flatten()
    for experience in maker.make_experience_batch(samples):
        rows = torch.where(experience.action_mask.bool(), wanted[experience.index, None], experience.advantages)
        torch.testing.assert_close(experience.advantages, rows, atol=1e-4, rtol=0.0)


def test_the_head_learns_and_a_weight_of_zero_changes_no_advantage(build: Any) -> None:
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    maker = build(clipo__weight=0)
    before = maker.head.projection.weight.clone()
    subject = maker.make_experience_batch(rollouts())
    assert not maker.head.projection.weight.equal(before)
    own = RemoteExperienceMaker.__new__(RemoteExperienceMaker)
    own.__dict__ = maker.__dict__
    for ours, theirs in zip(subject, own.make_experience_batch(rollouts()), strict=True):
        assert ours.advantages.equal(theirs.advantages)
    maker.actor_model_group.async_run_method(method_name="pop_pooled")


def test_penalties_on_length_fall_on_the_outcome_alone(build: Any, policy: Path) -> None:
    settings = {"reward__stop_properly_penalty_coef": 0.5, "reward__overlong_buffer_len": 4}
    maker, samples = build(**settings, rollout__max_new_tokens=8), rollouts()
    wanted, outcome = expected(maker, policy, samples), outcomes(samples)
    length = torch.cat([sample.response_length for sample in samples]).float()
    overlong = outcome - (length - 4).clamp(0, 4) / 4
    penalised = torch.where(torch.cat([sample.truncated for sample in samples]), overlong / 2, overlong)
    total, logged = both(maker.make_experience_batch(samples))
    assert (penalised[wanted < 0] != outcome[wanted < 0]).any()
    torch.testing.assert_close(logged, penalised, **TINY)
    torch.testing.assert_close(total - penalised, wanted, **TINY)
    assert (maker.args.reward.stop_properly_penalty_coef, maker.args.reward.overlong_buffer_len) == (0.5, 4.0)


def test_a_function_says_which_rollouts_are_right(build: Any) -> None:
    maker = build(clipo__success_fn="verdicts:short")
    maker.make_experience_batch(rollouts())
    short = torch.cat([sample.total_length for sample in rollouts()]) < 10
    assert maker.metrics["rollout/accuracy"] == pytest.approx(short.float().mean().item())
    assert 0.1 < maker.metrics["rollout/accuracy"] < 0.9


def test_a_score_is_right_above_the_threshold(build: Any) -> None:
    maker = build(clipo__success_threshold=1.0)
    maker.make_experience_batch(rollouts())
    assert maker.metrics["rollout/accuracy"] == maker.metrics["reward/contrastive"] == 0.0


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("scores", r"^clipo.success_fn: expected a bool tensor of shape \(5,\), got torch.float32 of shape \(5,\)$"),
        ("flat", r"^clipo.success_fn: expected a bool tensor of shape \(5,\), got torch.bool of shape \(\)$"),
    ],
)
def test_verdicts_of_another_kind_are_refused(build: Any, function: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        build(clipo__success_fn=f"verdicts:{function}").make_experience_batch(rollouts())


def test_without_verdicts_the_error_says_how_to_give_them(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"^clipo.success_fn: expected .*, or scores from the reward function, got n"):
        build().make_experience_batch(rollouts(scores=False))
