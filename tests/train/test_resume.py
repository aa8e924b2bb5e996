"""A run that is killed goes on to the very same parameters."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clipo_train.report import load_metrics

KILL_AT = Path(__file__).with_name("kill_at.py")
STEPS = 5


def clipo(*arguments: str, kill: tuple[str, int] = ("logged", -1)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(KILL_AT), kill[0], str(kill[1]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def train_arguments(config_file: Callable[..., Path], warm: Path) -> list[str]:
    config = config_file(
        steps=STEPS,
        model={"path": str(warm)},
        rollout={"max_new_tokens": 24},
        checkpoint={"every": 2},
        evaluation={"every": 2, "temperature": 1.0},
    )
    return ["train", str(config)]


def test_a_killed_run_resumes_to_the_same_parameters(train_arguments: list[str], tmp_path: Path, warm: Path) -> None:
    unbroken = tmp_path / "unbroken"
    done = clipo(*train_arguments, "--run_dir", str(unbroken))
    assert done.returncode == 0, done.stderr
    expected = load_file(unbroken / "final" / "model.safetensors")
    before = load_file(warm / "model.safetensors")
    assert all(not value.equal(before[name]) for name, value in expected.items() if "weight" in name)
    assert load_metrics(unbroken)[-1]["contrastive/anchor_fraction"] > 0

    for point, step in (("logged", 3), ("saving", 4), ("saved", 4)):
        broken = tmp_path / point
        killed = clipo(*train_arguments, "--run_dir", str(broken), kill=(point, step))
        assert killed.returncode == -signal.SIGKILL
        assert not (broken / "final").exists()
        assert [path.name for path in (broken / "checkpoints").glob("step-*")] == ["step-00000002"]

        resumed = clipo(*train_arguments, "--run_dir", str(broken), "--resume")
        assert resumed.returncode == 0, resumed.stderr
        parameters = load_file(broken / "final" / "model.safetensors")
        assert parameters.keys() == expected.keys()
        for name, value in parameters.items():
            assert value.equal(expected[name]), f"{name} differs after being killed at {point}"
        assert not list((broken / "checkpoints").glob(".unfinished*"))

        untimed = [
            [{key: value for key, value in row.items() if not key.startswith("time/")} for row in load_metrics(run)]
            for run in (unbroken, broken)
        ]
        assert untimed[0] == untimed[1]
