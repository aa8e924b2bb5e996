"""Training by TRL with contrastive rewards: with all its losses, and on from a checkpoint as if nothing had been."""

import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from clipo_train.adapters.trl import ClipoGRPOTrainer, ClipoRLOOTrainer
from clipo_train.errors import ConfigError

from .conftest import even, sevens

ROOT = Path(__file__).parents[3]


def parameters(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["05_trl.py", "2"])
    runpy.run_path(str(ROOT / "examples" / "05_trl.py"), run_name="__main__")
    heading, *rows = capsys.readouterr().out.splitlines()[-3:]
    assert heading.split() == ["step", "right", "contrastive", "reward"]
    for row in rows:
        _, right, contrastive = map(float, row.split())
        assert 0.2 < right < 0.8
        assert -0.5 <= contrastive < 0


def test_a_small_policy_learns(build: Callable[..., Any]) -> None:
    """Sevens are right; the contrastive reward is on top."""
    trainer = build(
        given={"reward_funcs": [sevens, even]},
        clipo={"dim": 16},
        clipo_success="sevens",
        clipo_success_threshold=0.1,
        reward_weights=[1.0, 0.0],
        max_steps=30,
    )
    trainer.train()
    rows = trainer.state.log_history
    assert sum(row["rewards/sevens/mean"] for row in rows[25:30]) > 3 * sum(
        row["rewards/sevens/mean"] for row in rows[:5]
    )
    assert all(row["rewards/clipo_contrastive/mean"] <= 0 for row in rows[:30])
    assert trainer.clipo_head.steps == 30
    glossary = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    ours = {name for name in rows[0] if "contrastive" in name}
    assert len(ours) == 7
    assert {name for name in ours if f"`{name}`" not in glossary} == set()


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo", "cispo", "sapo", "vespo"])
def test_every_loss_takes_a_step(build: Callable[..., Any], loss_type: str) -> None:
    settings = {"importance_sampling_level": "sequence"} if loss_type == "luspo" else {}
    trainer = build(loss_type=loss_type, max_steps=1, **settings)
    before = parameters(trainer)
    trainer.train()
    assert trainer.state.log_history[0]["rewards/clipo_contrastive/mean"] < 0
    assert all(not value.equal(before[name]) for name, value in parameters(trainer).items() if "weight" in name)


@pytest.mark.parametrize("settings", [{"multi_objective_aggregation": "normalize_then_sum"}, {"scale_rewards": "none"}])
def test_every_way_to_scale_rewards_takes_a_step(build: Callable[..., Any], settings: dict[str, Any]) -> None:
    trainer = build(max_steps=1, given={"reward_funcs": [even, sevens]}, **settings)
    trainer.train()
    assert trainer.state.log_history[0]["grad_norm"] > 0


def test_lora_learns_while_the_head_stays_outside(build: Callable[..., Any], tmp_path: Path) -> None:
    lora = {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"], r=4)}
    trainer = build(given=lora, max_steps=1, save_strategy="steps", save_steps=1)
    before = parameters(trainer)
    trainer.train()
    changed = {name for name, value in parameters(trainer).items() if not value.equal(before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert (tmp_path / "run" / "checkpoint-1" / "clipo_head.pt").exists()


@pytest.mark.parametrize(
    ("cls", "batches", "changes"),
    [(ClipoGRPOTrainer, 5, {}), (ClipoRLOOTrainer, 5, {}), (ClipoGRPOTrainer, 3, {"num_iterations": 2})],
)
def test_a_resumed_run_goes_on_exactly(
    build: Callable[..., Any], tmp_path: Path, cls: type, batches: int, changes: dict[str, Any]
) -> None:
    settings = {"clipo": {"dim": 16}, "max_steps": 5, "save_strategy": "steps", "save_steps": 2, **changes}
    unbroken = build(cls, **settings)
    unbroken.train()
    resumed = build(cls, **settings | {"output_dir": str(tmp_path / "resumed")})
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.clipo_head.steps == unbroken.clipo_head.steps == batches
    assert resumed.clipo_head.projection.weight.equal(unbroken.clipo_head.projection.weight)
    expected = parameters(unbroken)
    for name, value in parameters(resumed).items():
        assert value.equal(expected[name]), name
    for row, other in zip(resumed.state.log_history[:5], unbroken.state.log_history[:5], strict=True):
        assert {**row, "step_time": 0} == {**other, "step_time": 0}


def test_a_checkpoint_without_a_head_is_none_to_resume_from(build: Callable[..., Any], tmp_path: Path) -> None:
    trainer = build(max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    (tmp_path / "run" / "checkpoint-1" / "clipo_head.pt").unlink()
    with pytest.raises(ConfigError, match=r"^resume_from_checkpoint: expected a checkpoint with clipo_head.pt, got '"):
        build().train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
