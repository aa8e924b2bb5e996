"""Configuration from YAML and the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.config import TrainConfig
from clipo_train.config.files import dump_config, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "examples" / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    assert load_config(path).run_dir == Path("runs") / path.stem


def test_track_one_has_the_papers_numbers() -> None:
    config = load_config(CONFIGS[0].with_name("gsm8k_qwen.yaml"))
    prompts = config.rollout.batch_size // config.rollout.group_size
    assert (prompts, config.rollout.group_size, config.rollout.max_new_tokens) == (512, 16, 2048)
    assert config.optimizer.minibatch_size // config.rollout.group_size == 256
    assert config.steps - config.clipo.warmup_steps == 6 * (7473 // 512)  # whole batches in each of 6 epochs
    assert config.data.prompt_suffix == "Let's think step by step and output the final answer within \\boxed{}."
    assert (config.clipo.temperature, config.clipo.weight, config.clipo.floor) == (0.05, 0.2, -0.5)
    assert (config.loss.kl_weight, config.loss.kl_estimator, config.optimizer.learning_rate) == (1e-3, "k3", 1e-6)


def test_yaml_round_trips(tmp_path: Path) -> None:
    for path in CONFIGS:
        copy = tmp_path / path.name
        copy.write_text(dump_config(load_config(path)))
        assert load_config(copy) == load_config(path)


def test_the_command_line_overrides_single_fields(config_file: Callable[..., Path]) -> None:
    path = config_file(clipo={"dim": 16, "weight": 0.3})
    arguments = ["--clipo.dim", "32", "--resume", "--optimizer.betas=0.5,0.6", "--clipo.enabled", "false"]
    config = load_config(path, arguments)
    assert (config.clipo.dim, config.clipo.weight, config.clipo.enabled) == (32, 0.3, False)
    assert config.resume
    assert config.optimizer.betas == (0.5, 0.6)


def test_the_environment_is_not_read(config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "9")
    assert load_config(config_file()).seed == 0


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TrainConfig().steps = 3  # type: ignore[misc]
