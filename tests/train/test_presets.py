"""Presets: methods by name, with their papers' numbers."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipo_ops import (
    aggregate,
    aggregate_denominator,
    dapo_loss,
    dr_grpo_loss,
    gmpo_loss,
    grpo_loss,
    gspo_loss,
    kl_estimate,
)
from clipo_train.cli import main
from clipo_train.config import TrainConfig
from clipo_train.config.files import PRESETS, dump_config, load_config
from clipo_train.errors import ConfigError
from clipo_train.objective import policy_loss
from clipo_train.report import load_metrics
from clipo_train.trainer import Trainer

PAPER = Path(__file__).parents[2] / "examples" / "configs" / "paper"
RECIPES = {"grpo": grpo_loss, "dr_grpo": dr_grpo_loss, "dapo": dapo_loss, "gspo": gspo_loss, "gmpo": gmpo_loss}


@pytest.fixture
def load(config_file: Callable[..., Path]) -> Callable[..., TrainConfig]:
    """Loads a tiny configuration with a preset."""

    def of(name: str, *arguments: str, **sections: Any) -> TrainConfig:
        return load_config(config_file(**sections), ["--preset", name, *arguments])

    return of


def test_there_are_ten() -> None:
    assert sorted(PRESETS) == sorted([*RECIPES, *(f"{name}+clipo" for name in RECIPES)])
    files = {path.stem for path in (Path(load_config.__code__.co_filename).parent / "presets").iterdir()}
    assert files == {*RECIPES, "clipo"}
    help_text = TrainConfig.__pydantic_fields__["preset"].description  # type: ignore[attr-defined]
    assert all(f"`{name}`" in help_text for name in [*RECIPES, "grpo+clipo"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_is_the_papers_recipe(name: str, load: Callable[..., TrainConfig]) -> None:
    torch.manual_seed(0)
    config = load(name).loss
    old, new, reference = (torch.randn(32, 7) * 0.3 - 1 for _ in range(3))
    if name == "gspo":
        new = old + (new - old) * 1e-3  # so that it clips some, not all
    mask = torch.arange(7) < torch.randint(1, 8, (32, 1))
    advantages = torch.randn(32)
    weight = torch.ones(32, 7, requires_grad=True)

    denominator = aggregate_denominator(mask, mode=config.aggregation, max_length=9)
    with_reference = reference if config.kl_weight else None
    result = policy_loss(
        new * weight,
        old,
        with_reference,
        advantages,
        mask,
        config,
        denominator=denominator,
        tokens=aggregate_denominator(mask),
    )
    constant = {"max_length": 9} if name == "dr_grpo" else {}
    expected = RECIPES[name](new * weight, old, advantages, mask, **constant)
    assert (config.kl_weight > 0) == (name == "grpo")
    if name == "grpo":
        kl = kl_estimate(new * weight, reference)
        expected = expected + 0.04 * aggregate(kl, mask, mode="seq-mean-token-mean")
    assert abs(float((result.loss - expected).detach())) < 1e-6
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in (result.loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)
    assert 0 < float(result.clip_fraction) < 1


def test_only_dr_grpo_leaves_the_deviation_out(load: Callable[..., TrainConfig]) -> None:
    for name in RECIPES:
        loss = load(name).loss
        assert loss.advantages == "grpo"
        assert loss.advantage_scale == ("none" if name == "dr_grpo" else "group")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name: str, load: Callable[..., TrainConfig], warm: Path) -> None:
    config = load(
        name,
        model={"path": str(warm)},
        rollout={"max_new_tokens": 24, "batch_size": 32},
        evaluation={"sets": {}},
    )
    run = Trainer(config).train().parent
    before, after = load_file(warm / "model.safetensors"), load_file(run / "final" / "model.safetensors")
    assert any(not value.equal(after[key]) for key, value in before.items())
    method, _, clipo = name.partition("+")
    for step in load_metrics(run)[1:]:
        assert 0 < step["policy/grad_norm"] < 100
        assert ("contrastive/loss" in step) == (step["reward/contrastive"] < 0) == bool(clipo)
        assert ("rollout/sampling_rounds" in step) == (method == "dapo")
        if method == "dapo":
            assert step["rollout/informative"] == 1
            assert step["reward/overlong"] < 0  # responses are of about 20 tokens, of 24


def test_the_file_wins_over_the_preset_and_the_command_line_over_both(
    config_file: Callable[..., Path], load: Callable[..., TrainConfig]
) -> None:
    file = {"preset": "grpo", "loss": {"epsilon_high": 0.3}}
    config = load_config(config_file(**file))
    assert (config.loss.epsilon_high, config.loss.kl_weight, config.clipo.enabled) == (0.3, 0.04, False)
    assert config.clipo.dim == 16  # the file's
    config = load("dapo+clipo", "--loss.epsilon_low", "0.1", **file)
    assert (config.loss.epsilon_low, config.loss.epsilon_high, config.loss.kl_weight) == (0.1, 0.3, 0)
    assert (config.preset, config.clipo.enabled, config.rollout.dynamic_sampling) == ("dapo+clipo", True, True)
    assert not load("dapo+clipo", "--clipo.enabled", "false").clipo.enabled
    path = config_file()
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_an_unknown_preset_is_refused_in_one_line(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config_file()), "--preset", "ppo"]) == 2
    names = "grpo, grpo+clipo, dr_grpo, dr_grpo+clipo, dapo, dapo+clipo, gspo, gspo+clipo, gmpo, gmpo+clipo"
    assert capsys.readouterr().err == f"clipo train: preset: expected one of {names}, got 'ppo'\n"
    for unlike in ("clipo", ["grpo"], "../run"):
        with pytest.raises(ConfigError, match=r"^preset: expected one of grpo, "):
            load_config(config_file(preset=unlike))


def paper(name: str) -> TrainConfig:
    return load_config(PAPER / f"{name}.yaml")


TRACKS = {1: ("grpo",), 2: ("grpo", "dapo", "gspo", "gmpo")}


@pytest.mark.parametrize("name", [f"track{track}_{method}" for track in TRACKS for method in TRACKS[track]])
def test_the_papers_runs_have_the_papers_numbers(name: str) -> None:
    track_one, method = name.startswith("track1"), name.partition("_")[2]
    config = paper(f"{name}_clipo")
    rollout, clipo, optimizer = config.rollout, config.clipo, config.optimizer
    assert (rollout.batch_size // rollout.group_size, rollout.group_size) == (512 if track_one else 128, 16)
    assert (rollout.max_prompt_tokens, rollout.max_new_tokens) == (512, 2048 if track_one else 4096)
    prompts, epochs = (7473, 6) if track_one else (7500, 10)
    per_epoch = prompts // (rollout.batch_size // rollout.group_size)  # whole batches
    assert clipo.warmup_steps == per_epoch == (14 if track_one else 58)
    assert config.steps == epochs * per_epoch  # warm-up included
    assert config.data.prompt_suffix == "Let's think step by step and output the final answer within \\boxed{}."
    assert config.model.path == f"Qwen/Qwen2.5-{'3B' if track_one else '7B'}-Instruct"
    assert (clipo.objective, clipo.scope, clipo.temperature, clipo.weight) == ("infonce", "group", 0.05, 0.2)
    assert (clipo.floor, clipo.dim, clipo.head) == (-0.5, 512 if track_one else 2048, "linear")
    assert (clipo.learning_rate, clipo.weight_decay, optimizer.learning_rate) == (1e-3, 0.01, 1e-6)
    if track_one:
        assert optimizer.minibatch_size // rollout.group_size == 256
        assert (config.evaluation.samples, config.evaluation.temperature) == (1, 0)
    else:
        assert optimizer.minibatch_size == rollout.batch_size
        evaluation = config.evaluation
        assert (evaluation.samples, evaluation.temperature, evaluation.top_p) == (16, 0.6, 0.95)
    loss = config.loss
    kl_and_mean = (loss.kl_weight, loss.kl_estimator, loss.kl_in, loss.aggregation)
    assert (loss.advantages, loss.advantage_scale) == ("grpo", "group")
    if method == "grpo":
        assert kl_and_mean == (1e-3, "k3", "loss", "token-mean")
        assert (loss.epsilon_low, loss.epsilon_high, rollout.dynamic_sampling) == (0.2, 0.2, False)
    if method == "dapo":
        assert (loss.epsilon_low, loss.epsilon_high, rollout.dynamic_sampling) == (0.2, 0.28, True)
        assert math.isclose(config.reward.overlong_buffer * 20480, 4096)
    if method == "gspo":
        assert (loss.importance, loss.epsilon_low, loss.epsilon_high) == ("sequence", 3e-4, 4e-4)
    assert loss.dual_clip == (3.0 if method in ("grpo", "dapo") else None)
    assert (loss.surrogate == "gmpo") == (method == "gmpo")

    baseline = paper(name)
    assert not baseline.clipo.enabled
    alike = dataclasses.replace(baseline, run_dir=config.run_dir, preset=config.preset, clipo=config.clipo)
    assert alike == config


def test_every_run_of_the_paper_is_there() -> None:
    names = {f"track{track}_{method}" for track, methods in TRACKS.items() for method in methods}
    assert {path.stem for path in PAPER.iterdir()} == names | {f"{name}_clipo" for name in names}
