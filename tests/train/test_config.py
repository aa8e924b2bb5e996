"""Configuration from YAML and the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.config import TrainConfig
from clipo_train.config.files import dump_config, load_config
from clipo_train.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "examples" / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    assert load_config(path).run_dir == Path("runs") / path.stem


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "stepz: wanted a field of the configuration, got this unknown one"),
        ("clipo: {temprature: 1}", "clipo.temprature: wanted a field of the configuration, got this unknown one"),
        ("steps: many", "steps: input should be a valid integer, unable to parse string as an integer, got 'many'"),
        ("steps: 0", "steps: input should be greater than or equal to 1, got 0"),
        ("clipo: 3", "clipo: input should be a dictionary or an instance of ClipoConfig, got 3"),
        ("clipo: {temperature: 0}", "clipo.temperature: input should be greater than 0, got 0"),
        ("rollout: {temperature: -1}", "rollout.temperature: input should be greater than 0, got -1"),
        ("rollout: {group_size: 1}", "rollout.group_size: input should be greater than or equal to 2, got 1"),
        ("rollout: {group_size: 7}", "rollout.group_size: wanted a divisor of rollout.batch_size = 128, got 7"),
        (
            "optimizer: {micro_batch_size: 48}",
            "optimizer.micro_batch_size: wanted a divisor of optimizer.minibatch_size = 64, got 48",
        ),
        (
            "loss: {rollout_correction: truncated}",
            "loss.rollout_correction: wanted 'none' where the policy itself samples, as by rollout.engine ",
        ),
        ("reward: {overlong_buffer: 9}", "reward.overlong_buffer: input should be less than or equal to 1, got 9"),
        ("loss: {aggregation: mean}", "loss.aggregation: input should be 'token-mean', "),
        ("optimizer: {betas: [1, 2, 3]}", "optimizer.betas: tuple should have at most 2 items"),
        ("- a\n- b", "config: wanted a mapping of fields in "),
        ("a: b: c", "config: wanted YAML, got "),
    ],
)
def test_a_bad_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope", "3"], "unrecognized arguments: --nope 3"),
        (["--steps"], "argument --steps: expected one argument"),
        (["--clipo.weight", "big"], "clipo.weight: input should be a valid number"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(
    arguments: list[str], message: str, config_file: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(config_file(), arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
