"""A run that is asked to stop saves its last whole step, says how to go on, and goes on to the same numbers."""

import functools
import importlib
import os
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from clipo_train import stopping
from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.report import load_metrics
from clipo_train.stopping import Stopped, noted_signals
from clipo_train.trainer import Trainer

STEPS = 3
MOMENTS = {
    "initial evaluation": ("clipo_train.evaluation:Evaluator.run", 1, 0),
    "sampling": ("clipo_train.collector:Collector.collect", 2, 2),
    "update": ("clipo_train.learner:Learner.update", 2, 2),
    "checkpoint": ("clipo_train.trainer:save_checkpoint", 1, 2),
    "logging": ("clipo_train.metrics:MetricsLog.log", 2, 1),
    "last step": ("clipo_train.learner:Learner.update", 3, 3),
}
"""At which call a signal comes, the how manieth it is, and the step after which the run then stops."""


@pytest.fixture
def config(config_file: Callable[..., Path]) -> Path:
    return config_file(steps=STEPS, checkpoint={"every": 2}, evaluation={"every": 1})


@pytest.fixture
def unbroken(config: Path) -> Path:
    """The folder of a run that nothing happened to."""
    return Trainer(load_config(config, ["--run_dir", str(config.with_name("unbroken"))])).train().parent


def send_at(monkeypatch: pytest.MonkeyPatch, call: str, count: int, *signals: int) -> None:
    """Has a method send this process signals when it is called for the n-th time."""
    module, _, path = call.partition(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, name), iter(range(1, count + 1))

    def sending(*arguments: Any, **options: Any) -> Any:
        if next(calls, None) == count:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, sending)


def assert_same(run: Path, other: Path) -> None:
    one, two = (load_file(folder / "final" / "model.safetensors") for folder in (run, other))
    assert all(value.equal(two[name]) for name, value in one.items())
    rows = [
        [{key: value for key, value in row.items() if not key.startswith("time/")} for row in load_metrics(folder)]
        for folder in (run, other)
    ]
    assert rows[0] == rows[1]
    assert (run / "completions.jsonl").read_text() == (other / "completions.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_stops_after_its_step(
    moment: str,
    number: signal.Signals,
    config: Path,
    unbroken: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call, count, step = MOMENTS[moment]
    run = config.with_name("run")
    with monkeypatch.context() as patch:
        send_at(patch, call, count, number)
        assert main(["train", str(config), "--seed", "0"]) == 128 + number
    kept = f"the last checkpoint is '{run}/checkpoints/step-{step:08d}'" if step else "there is no checkpoint yet"
    line = capsys.readouterr().err.splitlines()[-1]
    command = f"clipo train {config} --seed 0 --run_dir {run} --resume"
    assert line == f"clipo train: stopped after step {step}, {kept}; to go on: {command}"
    assert not (run / "final").exists()
    assert main(shlex.split(command)[1:]) == 0
    assert_same(run, unbroken)


def test_a_second_one_stops_a_run_at_once(
    config: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config.with_name("run")
    monkeypatch.setattr(stopping, "_PASSED_ON", -1.0)
    with monkeypatch.context() as patch:
        send_at(patch, "clipo_train.learner:Learner._accumulate", 6, signal.SIGTERM, signal.SIGINT)
        assert main(["train", str(config), "--run_dir", str(run)]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("clipo train: stopped at once, nothing of the current step is saved; to go on: clipo train ")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    assert main(["train", str(config), "--run_dir", str(run), "--resume"]) == 0
    assert_same(run, unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_that_comes_twice_is_one(
    number: signal.Signals, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_at(monkeypatch, "clipo_train.learner:Learner._accumulate", 6, number, number)
    assert main(["train", str(config)]) == 128 + number
    assert "stopped after step" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_still_loads_ends_in_one_line(
    number: signal.Signals, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    send_at(monkeypatch, "clipo_train.trainer:Trainer._load_model", 1, number, number)
    assert main(["train", str(config)]) == 128 + number
    run = config.with_name("run")
    command = f"clipo train {config} --run_dir {run} --resume"
    assert capsys.readouterr().err == f"clipo train: stopped; to go on: {command}\n"
    assert not run.exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_commands_end_in_one_line(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_at(monkeypatch, "clipo_train.evaluation:Evaluator.run", 1, signal.SIGINT)
    assert main(["eval", str(config)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "clipo eval: stopped"


def fail_after(number: int) -> None:
    with noted_signals():
        os.kill(os.getpid(), number)
        raise ConnectionError("the engine\nis gone")


def test_what_fails_after_a_signal_was_stopped_by_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"saved \(ConnectionError: the engine is gone\)") as stopped:
        fail_after(signal.SIGTERM)
    assert stopped.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_ignored_signals_stay_ignored_and_other_threads_have_none() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_signals() as request:
            os.kill(os.getpid(), signal.SIGINT)
        assert request.number == 0
    finally:
        signal.signal(signal.SIGINT, before)
    inside = []

    def enter() -> None:
        with noted_signals() as request:
            inside.append(request.number)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [0]
