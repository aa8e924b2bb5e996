"""Configuration from YAML and the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.config import TrainConfig
from clipo_train.config.files import dump_config, load_config

EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"
CONFIGS = sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("paper/*.yaml")])  # the others are Accelerate's


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
