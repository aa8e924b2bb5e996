"""The page that compares runs, from run folders made by hand."""

import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipo_train.cli import main
from clipo_train.errors import ConfigError
from clipo_train.report import write_comparison
from clipo_train.report.comparison import spread
from clipo_train.report.runs import load_curves


class Page(HTMLParser):
    """A page's table rows as texts, its pictures' texts, its tags, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if values.get("role") == "img":
            self.pictures.append(values["aria-label"])
        named = [values[name] for name in ("src", "href", "xlink:href") if name in values]
        self.references += [value for value in named if not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        if "table" in self.open and data.strip():
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            pass


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a run whose accuracy rises to `accuracy`."""

    def write(name: str, *, accuracy: float = 0.5, steps: int = 20, seed: int = 0, **clipo: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rows: list[dict[str, float]] = [{"step": 0, "eval/heldout/accuracy": 0.25}]
        for step in range(1, steps + 1):
            row = {"step": step, "rollout/accuracy": accuracy * step / steps, "policy/entropy": 1.0, "time/step": 2.0}
            rows.append(row | ({"contrastive/loss": 2.0} if clipo.get("enabled", True) else {}))
        rows[-1] |= {"eval/heldout/accuracy": accuracy, "eval/heldout/accuracy_low": 0.0}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {"run_dir": str(folder), "seed": seed, "resume": seed == 1, "clipo": {"enabled": True} | clipo}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"steps": steps}))
        return folder

    return write


@pytest.fixture
def six_runs(write_run: Callable[..., Path]) -> list[Path]:
    """Three seeds with CLIPO, two without, one with another weight."""
    with_clipo = [write_run(f"on{seed}", seed=seed, accuracy=0.5 + seed**2 / 10) for seed in range(3)]
    without = [write_run(f"off{seed}", seed=seed, accuracy=0.4 + seed / 10, enabled=False) for seed in range(2)]
    return [*with_clipo, *without, write_run("heavy", weight=0.4)]


def test_seeds_make_a_curve_and_configurations_several(six_runs: list[Path]) -> None:
    curves = load_curves(six_runs)
    assert [curve.label for curve in curves] == [
        "clipo.enabled=True, clipo.weight=–",
        "clipo.enabled=False, clipo.weight=–",
        "clipo.enabled=True, clipo.weight=0.4",
    ]
    assert [[run.folder.name for run in curve.runs] for curve in curves] == [
        ["on0", "on1", "on2"],
        ["off0", "off1"],
        ["heavy"],
    ]


def test_the_label_is_what_differs_and_nothing_else(write_run: Callable[..., Path]) -> None:
    runs = [write_run("on", weight=0.2), write_run("off", weight=0.2, enabled=False)]
    assert [curve.label for curve in load_curves(runs)] == ["clipo.enabled=True", "clipo.enabled=False"]
    assert [curve.label for curve in load_curves(runs[:1])] == ["all runs"]


def test_the_tables_have_means_intervals_and_differences(six_runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_comparison(six_runs, tmp_path / "page.html").read_text())
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["heldout: outcome accuracy"] == ["0.667 0.500–0.900", "0.450 0.400–0.500", "0.500"]
    last_ten = sum(range(11, 21)) / 10 / 20
    assert rows["training: outcome accuracy"][2] == f"{0.5 * last_ten:.3f}"
    assert rows["clipo.weight"] == ["–", "–", "0.4"]
    assert rows["seed"] == ["0, 1, 2", "0, 1", "0"]
    assert rows["last step"] == ["20", "20", "20"]
    assert not any(row[0].endswith("low") for row in page.rows)


def test_every_picture_says_what_it_shows(six_runs: list[Path], tmp_path: Path) -> None:
    text = write_comparison(six_runs, tmp_path / "page.html").read_text()
    page = Page(text)
    assert [picture.split(".")[0] for picture in page.pictures] == [
        "Accuracy: outcome accuracy: training, rollout/accuracy",
        "Accuracy: outcome accuracy: heldout, eval/heldout/accuracy",
        "Exploration and step size: entropy (nats per token), policy/entropy",
        "Similarity within groups: contrastive loss, contrastive/loss",
        "Where a step's time goes: seconds: whole step, time/step",
    ]
    assert "clipo.enabled=True, clipo.weight=– ends at 0.667; clipo.enabled=False" in page.pictures[1]
    assert "clipo.enabled=False" not in page.pictures[3]
    assert page.references == []
    assert "script" not in page.tags
    assert text.count("fill-opacity: 0.2") == 4 * 2 + 1  # bands of the two curves with several seeds


def test_a_page_is_the_same_every_time(six_runs: list[Path], tmp_path: Path) -> None:
    first = write_comparison(six_runs, tmp_path / "page.html").read_bytes()
    assert write_comparison(six_runs, tmp_path / "page.html").read_bytes() == first


def test_a_curve_ends_with_its_shortest_run(write_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [write_run("whole", accuracy=0.5), write_run("killed", seed=1)]
    lines = (runs[1] / "metrics.jsonl").read_text().splitlines(keepends=True)
    (runs[1] / "metrics.jsonl").write_text("".join(lines[:11]))
    page = Page(write_comparison(runs, tmp_path / "page.html").read_text())
    assert re.search(r"rollout/accuracy\. all runs ends at 0\.25\.", page.pictures[0])
    assert {row[0]: row[1] for row in page.rows}["last step"] == "20, 10"


def test_the_interval_of_many_seeds_is_the_bootstrap_of_their_mean() -> None:
    values = np.array([[0.1, 1.0], [0.2, 2.0], [0.4, 4.0], [0.5, 5.0], [0.9, 9.0]])
    means = [np.mean(drawn) for drawn in itertools.product(values[:, 0], repeat=5)]
    found = spread(values)
    np.testing.assert_allclose(found.mean, [0.42, 4.2])
    np.testing.assert_allclose(found.low, np.quantile(means, 0.025) * np.array([1, 10]), rtol=0.05)
    np.testing.assert_allclose(found.high, np.quantile(means, 0.975) * np.array([1, 10]), rtol=0.05)


def test_what_no_run_of_a_curve_has_logged_is_not_drawn(write_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [write_run(f"off{seed}", seed=seed, enabled=False) for seed in range(5)]
    page = Page(write_comparison([*runs, write_run("on")], tmp_path / "page.html").read_text())
    assert "clipo.enabled=True ends at 2." in page.pictures[3]
    assert "clipo.enabled=False ends" not in page.pictures[3]


def test_runs_that_cannot_be_compared(write_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [write_run("one"), write_run("two")]
    with pytest.raises(
        ConfigError, match=r"run: expected one run of each seed and configuration, got seed 0 in '.*one'"
    ):
        write_comparison(runs, tmp_path / "page.html")
    (runs[0] / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"run: expected a folder with a config\.yaml, got '.*one'"):
        write_comparison(runs, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_command(
    six_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(run) for run in six_runs]
    assert main(["report", *runs]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert main(["report", *runs, "--output", "mine.html"]) == 0
    assert (tmp_path / "mine.html").read_bytes() == (tmp_path / "comparison.html").read_bytes()
    assert main(["report", runs[0], "--output", "one.html"]) == 0
    assert "<h1>on0</h1>" in (tmp_path / "one.html").read_text()
    assert not (six_runs[0] / "report.html").exists()
    capsys.readouterr()
    assert main(["report", *runs, "--output", "no/such.html"]) == 2
    assert capsys.readouterr().err == (
        "clipo report: output: expected a file in a folder that exists, got 'no/such.html'\n"
    )
