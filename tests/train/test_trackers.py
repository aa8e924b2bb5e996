"""Accelerate's trackers: all of them by name, TensorBoard with what it holds, a missing one in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipo_train.cli import main
from clipo_train.config import LoggingConfig
from clipo_train.config.files import load_config
from clipo_train.report import load_metrics
from clipo_train.trainer import Trainer


def test_every_tracker_of_accelerate_can_be_named() -> None:
    names = get_args(get_args(get_type_hints(LoggingConfig)["trackers"])[0])
    assert sorted(names) == sorted(set(LoggerType.list()) - {"all"})


def test_tensorboard_holds_the_metrics_and_the_configuration(config_file: Callable[..., Path]) -> None:
    config = load_config(config_file(logging={"trackers": ["tensorboard"], "project": "mine"}))
    run = Trainer(config).train().parent
    events = EventAccumulator(str(run / "mine"))
    events.Reload()
    held: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            held.setdefault(event.step, {})[name] = event.value
    for row in load_metrics(run):
        assert held.pop(int(row.pop("step"))) == pytest.approx(row)
    assert held == {}
    (parameters,) = run.glob("mine/*/hparams.yml")
    assert "clipo.dim: 16\n" in parameters.read_text()


@pytest.mark.parametrize("name", ["wandb", "comet_ml", "swanlab"])
def test_a_tracker_that_is_not_installed(
    name: str, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    config = config_file(logging={"trackers": ["tensorboard", name]})
    assert main(["train", str(config)]) == 2
    wanted = f"logging.trackers: expected an installed {name}, got none; `pip install {name}`"
    assert capsys.readouterr().err == f"clipo train: {wanted}\n"
    assert not load_config(config).run_dir.exists()
