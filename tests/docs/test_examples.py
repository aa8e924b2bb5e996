"""The examples run as a user runs them, and show what they say."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from clipo_train.testbed.arithmetic import solution
from clipo_train.testbed.warm_start import warm_start

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    environment["TMPDIR"] = str(folder)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(output: str) -> list[list[str]]:
    """The rows of all tables, but for their headings."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The warm-started policy that the examples would make for themselves, each anew."""
    folder = tmp_path_factory.mktemp("models") / "warm"
    for part in warm_start(0):
        part.save_pretrained(folder)
    return str(folder)


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


def test_the_trainer_learns_and_its_export_writes_what_is_shown(warm: str, tmp_path: Path) -> None:
    output = run("03_trainer.py", warm, folder=tmp_path)
    told = re.search(r"Held-out accuracy: (0\.\d\d) before, (0\.\d\d) after 10 steps", output)
    assert told is not None
    before, after = map(float, told.groups())
    assert after > before + 0.1
    (report,) = tmp_path.glob("*/run/report.html")
    assert f"Report: {report}" in output
    presets = [row for row in cells(output) if len(row) == 2]
    assert ["dapo+clipo", "loss.epsilon_high: 0.28"] in presets
    assert ["gmpo+clipo", "loss.aggregation: seq-mean-token-mean"] in presets
    assert ["", "loss.surrogate: gmpo"] in presets
    rows = [row for row in cells(output) if len(row) > 2]
    assert [row[0] for row in rows[:10]] == [str(step) for step in range(1, 11)]
    written = [row for row in rows if row[0].endswith("=")]
    assert len(written) == 5
    for prompt, response, answer, right, process in written:
        assert right == ("yes" if response.partition("#")[2] == answer else "no")
        assert process == ("yes" if response == solution(prompt) else "no")


def test_an_objective_and_a_verifier_of_ones_own_are_what_is_trained_by(warm: str, tmp_path: Path) -> None:
    output = run("04_custom_objective_and_verifier.py", warm, folder=tmp_path)
    losses = next(row[1:] for row in cells(output) if row[0] == "nearest_wrong")
    angles = (0, 5, 40)
    for angle, loss in zip(angles, losses, strict=False):
        wrong = math.cos(math.radians(60 - angle))
        right = fmean(math.cos(math.radians(other - angle)) for other in angles if other != angle)
        assert float(loss) == pytest.approx(math.log1p(math.exp((wrong - right) / 0.2)), abs=6e-4)
    assert losses[3] == "0.000"

    (folder,) = tmp_path.glob("*/run")
    tasks = {task["prompt"]: task for task in map(json.loads, (folder.parent / "tasks.jsonl").read_text().splitlines())}
    completions = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert len(completions) == 6 * 8
    for row in completions:
        work, _, answer = row["completion"].partition("#")
        steps = tasks[row["prompt"]]["steps"]
        share = sum(step in work.split(";") for step in steps) / len(steps)
        assert row["outcome"] == pytest.approx(0.8 * (answer == row["answer"]) + 0.2 * share)
        assert row["process"] == (";".join(steps) == work)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["rollout/accuracy"] > metrics[1]["rollout/accuracy"]
    assert all(row["contrastive/loss"] > 0 > row["reward/contrastive"] for row in metrics if row["step"] > 0)
    assert metrics[-1]["contrastive/loss"] < 0.5  # of most right rollouts in a group, InfoNCE's is above log 4


def test_the_evaluation_table_is_its_json(warm: str, tmp_path: Path) -> None:
    output = run("07_evaluation.py", warm, folder=tmp_path)
    rows = cells(output)
    by_hand = {row[0]: row[1] for row in rows[:6]}
    assert by_hand == {
        "avg@8": "0.375",
        "pass@1": "0.375",
        "pass@2": f"{1 - (5 * 4) / (8 * 7):.3f}",
        "pass@4": f"{1 - (5 * 4 * 3 * 2) / (8 * 7 * 6 * 5):.3f}",
        "pass@8": "1.000",
        "maj@8": "0.000",
    }
    (path,) = tmp_path.glob("*/results.json")
    results = json.loads(path.read_text())
    assert list(results) == ["first", "colder", "after RL"]
    names = ("accuracy", "pass_at_8", "maj_at_8", "process_accuracy", "process_pass_at_8")
    for part in ("heldout", "long"):
        for policy, metrics in results.items():
            place = next(i for i, row in enumerate(rows) if row[:2] == [part, policy])
            values = [metrics[f"eval/{part}/{name}"] for name in names]
            assert rows[place][2:] == [f"{value:.2f}".removeprefix("0") for value in values]
            assert values[1] >= values[0] >= values[3]
    first, trained = results["first"], results["after RL"]
    told = dict(re.findall(r"(heldout|long): 'after RL' against 'first' by avg@8: (is better|is worse|cannot)", output))
    assert trained["eval/heldout/accuracy_low"] > first["eval/heldout/accuracy_high"]
    assert told["heldout"] == "is better"
    worse = trained["eval/long/accuracy_high"] < first["eval/long/accuracy_low"]
    assert (told["long"] == "is worse") == worse


def test_a_report_is_read_as_its_runs_have_it(warm: str, tmp_path: Path) -> None:
    output = run("08_reading_a_report.py", warm, folder=tmp_path)
    (page,) = tmp_path.glob("*/comparison.html")
    assert {"clipo.enabled=False", "clipo.enabled=True"} <= set(re.findall(r"clipo\.enabled=\w+", page.read_text()))

    def numbers(arm: str, name: str) -> list[float]:
        logs = [(page.parent / f"{arm}-{seed}" / "metrics.jsonl").read_text().splitlines() for seed in (0, 1)]
        values = [[row[name] for row in map(json.loads, lines) if name in row] for lines in logs]
        return [run[-1] if name.startswith("eval/") else fmean(run) for run in values if run]

    rows = {row[0]: row[1:] for row in cells(output)}
    for name in ("rollout/informative", "contrastive/clamp_fraction", "eval/heldout/accuracy"):
        found = [numbers(arm, name) for arm in ("GRPO", "GRPO+CLIPO")]
        assert rows[name] == [f"{fmean(values):.3f}" if values else "–" for values in found]
    assert rows["contrastive/clamp_fraction"][0] == "–"
    assert rows["advantage/negative_among_right"][0] == "0.000"
    grpo, clipo = (numbers(arm, "eval/heldout/accuracy") for arm in ("GRPO", "GRPO+CLIPO"))
    told = ", ".join(f"{one - other:+.3f}" for one, other in zip(clipo, grpo, strict=True))
    assert f"eval/heldout/accuracy: CLIPO less GRPO, seed by seed: {told}: " in " ".join(output.split())


def test_no_example_is_long() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 150} == {}
