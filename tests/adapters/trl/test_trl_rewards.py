"""The contrastive column among TRL's rewards is that of clipo_ops, on the same rollouts."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer, RLOOTrainer

from .conftest import even, sevens
from .watching import WatchingGRPO, WatchingRLOO

LORA = {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)}


@pytest.mark.parametrize(
    ("cls", "own", "settings", "given"),
    [
        (WatchingGRPO, 2, {}, {}),
        (WatchingGRPO, 2, {"activation_checkpointing": True}, {}),
        (WatchingGRPO, 2, {"beta": 0.1}, {}),
        (WatchingGRPO, 2, {"beta": 0.1}, LORA),
        (WatchingGRPO, 0, {"steps_per_generation": 4}, {}),
        (WatchingGRPO, 0, {"steps_per_generation": 4, "pad_to_multiple_of": 8}, {}),
        (WatchingGRPO, 0, {"num_iterations": 2, "max_steps": 3}, {}),
        (WatchingGRPO, 0, {"steps_per_generation": 4, "beta": 0.1}, {}),
        (WatchingGRPO, 0, {"steps_per_generation": 4}, LORA),
        (WatchingGRPO, 1, {"steps_per_generation": 4, "mask_truncated_completions": True}, {}),
        (WatchingRLOO, 0, {"beta": 0.0}, {}),
        (WatchingRLOO, 0, {"beta": 0.1}, {}),
        (WatchingRLOO, 2, {"beta": 0.1}, LORA),
    ],
)
def test_contrastive_rewards_are_those_of_the_ops(
    build: Callable[..., Any], cls: type, own: int, settings: dict[str, Any], given: dict[str, Any]
) -> None:
    trainer = build(cls, given=given, **settings)
    trainer.train()
    torch.testing.assert_close(torch.cat(trainer.got), torch.cat(trainer.expected), rtol=0, atol=1e-5)
    assert torch.cat(trainer.got).lt(-0.01).sum() > 3
    assert trainer.own_forwards == own


def test_under_autocast_hidden_states_are_pooled_in_float32(build: Callable[..., Any]) -> None:
    trainer = build(WatchingGRPO, bf16=True)
    trainer.train()
    torch.testing.assert_close(torch.cat(trainer.got), torch.cat(trainer.expected), rtol=0, atol=0.05)


def test_tokens_of_tools_are_left_out(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def roll_out(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        sizes = [3 + index % 5 for index in range(len(prompts))]
        return {
            "prompt_ids": trainer.processing_class(list(prompts))["input_ids"],
            "completion_ids": [torch.randint(0, 15, (size,)).tolist() for size in sizes],
            "logprobs": [[0.0] * size for size in sizes],
            "env_mask": [[1, *torch.randint(0, 2, (size - 1,)).tolist()] for size in sizes],
        }

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    trainer = build(WatchingGRPO, given={"rollout_func": roll_out})
    trainer.train()
    torch.testing.assert_close(torch.cat(trainer.got), torch.cat(trainer.expected), rtol=0, atol=1e-5)
    assert torch.cat(trainer.got).lt(-0.01).sum() > 3


def test_rollouts_without_a_verdict_take_no_part(build: Callable[..., Any]) -> None:
    def judge(completions: Sequence[str], **_: Any) -> list[float | None]:
        rewards = even(completions)
        return [None if row % 7 == 3 else reward for row, reward in enumerate(rewards)]

    def length(completions: Sequence[str], **_: Any) -> list[float | None]:
        return [None if row == 3 else -0.01 * len(text) for row, text in enumerate(completions)]

    trainer = build(WatchingGRPO, given={"reward_funcs": [length, judge]}, clipo_success="judge")
    trainer.train()
    torch.testing.assert_close(torch.cat(trainer.got), torch.cat(trainer.expected), rtol=0, atol=1e-5, equal_nan=True)
    assert trainer.got[0].isnan().nonzero().flatten().tolist() == [3, 10]
    advantages = list(trainer._logs["advantages"])
    assert advantages[3] == 0  # no reward at all: TRL leaves it out
    assert advantages[10] != 0


def test_a_batch_without_any_verdict_leaves_the_head_alone(build: Callable[..., Any]) -> None:
    def judge(completions: Sequence[str], **_: Any) -> list[None]:
        return [None] * len(completions)

    trainer = build(given={"reward_funcs": [judge, sevens]}, clipo_success="judge", max_steps=1)
    before = trainer.clipo_head.projection.weight.clone()
    trainer.train()
    assert trainer.clipo_head.steps == 0
    assert trainer.clipo_head.projection.weight.equal(before)
    assert trainer.state.log_history[0]["rewards/clipo_contrastive/mean"] is None


def test_success_may_be_a_threshold_of_a_function_that_is_no_reward(build: Callable[..., Any]) -> None:
    settings = {"clipo_success": "sevens", "clipo_success_threshold": 0.1, "reward_weights": [0.0, 0.5]}
    trainer = build(WatchingGRPO, given={"reward_funcs": [sevens, even]}, **settings)
    trainer.train()
    torch.testing.assert_close(torch.cat(trainer.got), torch.cat(trainer.expected), rtol=0, atol=1e-5)
    row = trainer.state.log_history[0]
    contrastive = row["rewards/clipo_contrastive/mean"]
    assert contrastive < 0
    assert row["reward"] == pytest.approx(0.5 * row["rewards/even/mean"] + contrastive, abs=1e-6)


@pytest.mark.parametrize(("cls", "plain"), [(WatchingGRPO, GRPOTrainer), (WatchingRLOO, RLOOTrainer)])
@pytest.mark.parametrize("clipo", [{"weight": 0.0}, {"floor": 0.0}, {"enabled": False}])
def test_without_a_reward_training_is_that_of_trl_to_the_bit(
    build: Callable[..., Any], cls: type, plain: type, clipo: dict[str, Any]
) -> None:
    watched = cls if clipo.get("enabled", True) else cls.__mro__[2]
    parameters = []
    for which, settings in ((watched, {"clipo": clipo}), (plain, {})):
        trainer = build(which, **settings)
        trainer.train()
        parameters.append(trainer.model.state_dict())
    assert all(value.equal(parameters[1][name]) for name, value in parameters[0].items())


def test_an_evaluation_uses_the_head_and_changes_nothing(build: Callable[..., Any]) -> None:
    settings = {"clipo": {"dim": 16}, "num_generations_eval": 2}  # infonce: the head draws positives
    trainer = build(**settings)
    trainer.train()
    weight, draws = trainer.clipo_head.projection.weight.clone(), trainer.clipo_head.generator.get_state()
    metrics = trainer.evaluate()
    assert trainer.clipo_head.projection.weight.equal(weight)
    assert trainer.clipo_head.generator.get_state().equal(draws)
    assert trainer.clipo_head.steps == 2
    assert metrics.keys() >= {"eval_rewards/clipo_contrastive/mean", "eval_contrastive/anchor_fraction"}

    watching = build(WatchingGRPO, num_generations_eval=8)
    watching.evaluate()
    torch.testing.assert_close(torch.cat(watching.got), torch.cat(watching.expected), rtol=0, atol=1e-5)
    assert torch.cat(watching.got).lt(0).any()


def test_a_head_that_warms_up_learns_and_gives_no_reward(build: Callable[..., Any]) -> None:
    trainer = build(clipo={"dim": 16, "warmup_steps": 1})
    before = trainer.clipo_head.projection.weight.clone()
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["rewards/clipo_contrastive/mean"] == 0 > second["rewards/clipo_contrastive/mean"]
    assert first["contrastive/anchor_fraction"] > 0
    assert not trainer.clipo_head.projection.weight.equal(before)
