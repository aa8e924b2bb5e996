"""The examples run as a user runs them, and show what they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shapes_are_told_as_they_are(tmp_path: Path) -> None:
    output = run("01_shapes.py", folder=tmp_path)
    assert f"```text\n{output}```" in (EXAMPLES.parent / "docs" / "own-loop.md").read_text(), "the page shows it"
    told = {line.split()[0]: line for line in output.splitlines()}
    assert "8 x 6 x 16" in told["hidden"]
    assert "3 of 7 right ones" in told["anchors"]
    assert "-0.50" not in told["contrastive"], "at the floor there would be nothing to see"


@pytest.mark.parametrize("weight", ["0", "0.2"])
def test_the_own_loop_learns_to_add(weight: str, tmp_path: Path) -> None:
    lines = run("02_own_loop.py", "--steps", "120", "--weight", weight, folder=tmp_path).splitlines()
    first, last = (float(line.split()[3]) for line in (lines[0], lines[-1]))
    assert first < 0.6 < 0.75 < last


def test_no_example_is_long() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 150} == {}
