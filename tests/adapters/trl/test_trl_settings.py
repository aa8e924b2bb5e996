"""Settings of CLIPO among TRL's: from the command line and YAML, as JSON, and the errors about them."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl
from trl import GRPOConfig, TrlParser

from clipo_train.adapters import trl as adapter
from clipo_train.adapters.trl import ClipoGRPOConfig, ClipoRLOOConfig, ClipoRLOOTrainer
from clipo_train.config import ClipoConfig
from clipo_train.errors import ConfigError

from .conftest import SETTINGS, even, sevens

CPU = {"use_cpu": True, "bf16": False, "activation_checkpointing": False}


@pytest.mark.parametrize("cls", [ClipoGRPOConfig, ClipoRLOOConfig])
def test_settings_come_from_yaml_and_the_command_line_and_go_to_json(cls: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    lines = [f"{name}: {str(value).lower()}" for name, value in CPU.items()]
    file.write_text("\n".join([*lines, "output_dir: out", "clipo_success: right", "clipo:", "  weight: 0.1"]))
    (from_file,) = TrlParser([cls]).parse_args_and_config(["--config", str(file)])
    assert from_file.clipo_success == "right"
    assert from_file.clipo["weight"] == 0.1
    assert from_file.clipo["temperature"] == ClipoConfig().temperature

    arguments = ["--config", str(file), "--clipo", '{"weight": 0.3, "head": "mlp"}', "--clipo_success_threshold", "0.5"]
    (from_line,) = TrlParser([cls]).parse_args_and_config(arguments)
    assert (from_line.clipo["weight"], from_line.clipo["head"], from_line.clipo_success_threshold) == (0.3, "mlp", 0.5)

    kept = json.loads(from_line.to_json_string())
    assert cls(**CPU, **{name: kept[name] for name in kept if name.startswith("clipo")}).clipo == from_line.clipo


def test_a_configuration_of_clipo_is_taken_as_it_is() -> None:
    assert ClipoGRPOConfig(**CPU, clipo=ClipoConfig(dim=8)).clipo == ClipoGRPOConfig(**CPU, clipo={"dim": 8}).clipo


@pytest.mark.parametrize(
    ("clipo", "message"),
    [
        ({"weight": -1}, r"^clipo.weight: expected greater than or equal to 0, got -1$"),
        ({"lambda": 1}, r"^clipo.lambda: expected a field of the configuration, got this unknown one$"),
        ("weight", r"^clipo: expected a dictionary or an instance of ClipoConfig, got 'weight'$"),
    ],
)
def test_wrong_settings_are_told_in_one_line(clipo: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipoGRPOConfig(**CPU, clipo=clipo)


@pytest.mark.parametrize("chosen", [None, "odd"])
def test_without_a_notion_of_success_the_error_says_how_to_give_one(build: Callable[..., Any], chosen: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^clipo_success: expected .* of even, sevens; got {chosen!r}$"):
        build(clipo_success=chosen, given={"reward_funcs": [even, sevens]})


def test_of_two_reward_functions_of_one_name_none_is_chosen(build: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^clipo_success: expected the name of one reward function"):
        build(clipo_success="even", given={"reward_funcs": [even, even]})


@pytest.mark.parametrize("cls", [None, ClipoRLOOTrainer])
def test_a_configuration_of_trl_alone_is_no_configuration(build: Callable[..., Any], cls: Any) -> None:
    plain = GRPOConfig(
        **{name: value for name, value in SETTINGS.items() if not name.startswith("clipo")}, output_dir="out"
    )
    with pytest.raises(ConfigError, match=r"^args: expected a ClipoGRPOConfig or ClipoRLOOConfig, got a GRPOConfig$"):
        build(given={"args": plain})


def test_the_lists_that_a_user_gave_stay_as_they_were(build: Callable[..., Any]) -> None:
    functions, weights = [even, sevens], [1.0, 0.5]
    trainer = build(given={"reward_funcs": functions}, reward_weights=weights)
    assert functions == [even, sevens]
    assert weights == trainer.args.reward_weights == [1.0, 0.5]
    assert trainer.reward_weights.tolist() == [1.0, 0.5, 1.0]


def load_anew() -> None:
    """Runs the module's code once more, under another name."""
    spec = importlib.util.spec_from_file_location("another", adapter.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["another"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["another"]


def test_another_version_of_trl_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    load_anew()
    monkeypatch.setattr(trl, "__version__", "1.17.0")
    with pytest.warns(UserWarning, match=r"tested with TRL 1.16.\*, got 1.17.0$"):
        load_anew()


def test_without_trl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ImportError, match=r"pip install 'clipo\[trl\]'$"):
        load_anew()
