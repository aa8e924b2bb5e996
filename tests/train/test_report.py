"""The report, the tables and the metrics log, from a run folder made by hand."""

import errno
import io
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from accelerate import Accelerator
from rich.console import Console

from clipo_train.cli import main
from clipo_train.errors import ConfigError, printable
from clipo_train.evaluation import results_table
from clipo_train.metrics import MetricsLog, progress_bar
from clipo_train.report import completions_table, load_metrics, notices, summary_table, write_report
from clipo_train.report.runs import points
from clipo_train.verify_data import Check, checks_table


class Page(HTMLParser):
    """What a page refers to, and its text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.references += [value for value in named if not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        if self.tags and data.strip():
            self.texts.setdefault(self.tags[-1], []).append(data.strip())


def write_run(folder: Path, *, contrastive: bool = True) -> Path:
    rows = [{"step": 0, "eval/heldout/accuracy": 0.5, "eval/heldout/response_length": 18.04}]
    for step in range(1, 6):
        row = {"step": step, "rollout/accuracy": 0.1 * step, "reward/outcome": 0.1 * step, "policy/entropy": 1 / step}
        row |= {"time/rollout": 0.1, "time/update": 0.2, "time/step": 0.3, "reward/total": 0.1}
        if contrastive:
            row |= {"contrastive/loss": 2.0, "contrastive/similarity_positive": 0.9, "reward/contrastive": -0.1}
        rows.append(row)
    rows[-1] |= {"eval/heldout/accuracy": 0.875, "eval/heldout/response_length": 20.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample = {"step": 5, "prompt": "1+1=", "completion": "<script>alert(1)</script> [bold]", "answer": "2"}
    sample |= {"success": True, "process": False, "outcome": 1.0, "contrastive": -0.25, "advantage": 0.5}
    (folder / "completions.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "config.yaml").write_text("seed: 12345\n")
    return folder


def test_the_page_stands_alone_and_escapes_what_the_policy_wrote(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path)).read_text()
    page = Page(text)
    assert page.references == []
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "seed: 12345" in text


def test_the_page_shows_the_numbers(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path)).read_text())
    assert "0.500 → 0.875" in page.texts["td"]
    assert "18.0 → 20.0" in page.texts["td"]
    assert "right, process wrong" in page.texts["td"]
    assert "-0.250" in page.texts["td"]


def test_what_was_not_logged_has_no_heading(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path)).read_text())
    assert "Similarity within groups" in page.texts["h2"]
    assert page.tags.count("svg") == 7
    page = Page(write_report(write_run(tmp_path, contrastive=False)).read_text())
    assert "Similarity within groups" not in page.texts["h2"]
    assert page.tags.count("svg") == 4


def test_the_page_is_the_same_every_time(tmp_path: Path) -> None:
    first = write_report(write_run(tmp_path)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_a_line_cut_short_is_passed_over_and_a_later_line_wins(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "a": 1}\n{"step": 0, "a": 0}\n{"step": 1, "a": 2}\n{"step": 2, "'
    )
    assert load_metrics(tmp_path) == [{"step": 0, "a": 0}, {"step": 1, "a": 2}]


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_run_without_metrics_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=r"expected a folder with a metrics\.jsonl of at least one line"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_terminal_shows_the_same(tmp_path: Path) -> None:
    console = Console(width=200, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(summary_table(load_metrics(write_run(tmp_path))), completions_table(tmp_path))
    text = capture.get()
    assert "0.500 → 0.875" in text
    assert "<script>alert(1)</script> [bold]" in text
    assert "right, process wrong" in text


HOSTILE = [
    "[/b]",
    r"\[/x\]",
    "[link=file:///etc/passwd]x[/link]",
    "[bold red]x",
    ":smile:",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\x9b31m",
    "a\rb\x08c\x00",
    "\u202etxet",
    "\ud800",
    r"$\frac{1$",
    "$x^{2}$",
    "a$b",
    "_hidden",
    "数学",
    "<b>&amp;",
    "",
]
"""What completions, answers and names of sets may hold."""


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_texts_are_shown_as_they_are(text: str, tmp_path: Path) -> None:
    run, name = write_run(tmp_path), text.replace("/", "")  # names of sets have no slash
    sample = {"step": 5, "prompt": text, "completion": text, "answer": text, "success": True, "process": None}
    sample |= {"outcome": 1.0, "contrastive": -0.25, "advantage": 0.5}
    (run / "completions.jsonl").write_text(json.dumps(sample) + "\n")
    rows = [{"step": step, f"eval/{name}/accuracy": 0.1 * step, "policy/entropy": 1.0} for step in range(3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = load_metrics(run)
    console = Console(width=300, force_terminal=True, color_system=None, file=io.StringIO())
    results = {f"eval/{name}/accuracy": 0.5}
    console.print(summary_table(metrics), completions_table(run), results_table(results))
    console.print(checks_table([Check(f"data/{text}", (text,), 1, {})]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    styles = re.compile(r"\x1b\[[0-9;]*m")  # rich's own
    assert printable(text).strip() in styles.sub("", shown)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", styles.sub("", shown))
    page = write_report(run).read_text()
    assert "mtext" not in page
    assert page.count("<svg") == 2


def test_a_progress_note_is_no_markup() -> None:
    with progress_bar() as progress:
        progress.add_task("[/b]", total=1, note=r"[/x] \[/y]")


def test_the_log_has_null_for_what_is_not_finite_and_rewinds(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, Accelerator())
    for step in range(4):
        log.log(step, {"a": float(step), "b": float("nan")})
        log.completions([{"step": step, "prompt": "é"}])
    with log.metrics_path.open("a") as file:
        file.write('{"step": 1')  # a kill cut this short
    log.rewind(2)
    lines = [json.loads(line) for line in log.metrics_path.read_text().splitlines()]
    assert lines == [{"step": step, "a": float(step), "b": None, "nonfinite_metrics": 1} for step in range(3)]
    metrics = load_metrics(tmp_path)
    assert all(math.isnan(row["b"]) for row in metrics)
    assert points(metrics, "b") == ([], [])
    assert notices(metrics) == ["b was not finite: steps 0, 1, 2."]
    assert len(log.completions_path.read_text().splitlines()) == 3


@pytest.mark.parametrize("name", [".report.html", "report.html"])
def test_a_page_replaces_links_and_never_follows_them(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (write_run(run) / name).symlink_to(precious)
    page = write_report(run)
    assert page.read_text().startswith("<!")
    assert not page.is_symlink()
    assert precious.read_text() == "mine"
    assert [path.name for path in run.glob(".*") if path.name != name] == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(write_run(tmp_path))
    before, names = page.read_text(), sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", _disk_full)
    with pytest.raises(ConfigError, match=r"output: expected a file that can be written, got '.*': No space left"):
        write_report(tmp_path)
    assert (page.read_text(), sorted(tmp_path.iterdir())) == (before, names)


def _disk_full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("metrics.jsonl", "[1]", "run: expected an object in line 7 of '.*', got list"),
        ("metrics.jsonl", "null", "run: expected an object in line 7 of '.*', got NoneType"),
        *(
            ("metrics.jsonl", line, "run: expected a step and numbers in each line of '.*', got ")
            for line in (
                "{}",
                '{"a": 1}',
                '{"step": null}',
                '{"step": "x"}',
                '{"step": NaN}',
                '{"step": 1, "a": "b"}',
                '{"step": 1, "a": [1]}',
                '{"step": 1, "a": true}',
                '{"step": 1, "eval/accuracy": 1}',
                f'{{"step": 1, "a": 1{"0" * 400}}}',
                f'{{"step": 1, "a": {"9" * 5000}}}',
            )
        ),
        ("completions.jsonl", "3", "run: expected an object in line 2 of '.*', got int"),
        ("completions.jsonl", '{"step": 5}', "run: expected sample completions in '.*', got a line with prompt None"),
        ("config.yaml", "seed: 2", "config: expected YAML, got '.*': found the key 'seed' of line 1 again in line 2"),
        ("config.yaml", "- a", "config: expected YAML, got '.*': "),
    ],
)
def test_what_is_wrong_in_a_runs_files_is_told_in_one_line(
    file: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (write_run(tmp_path) / file).open("a") as opened:
        opened.write(f"{line}\n")
    page = tmp_path / "page.html"
    runs = [str(tmp_path)] * (
        2 if file == "config.yaml" else 1
    )  # a page about one run shows its configuration as it is
    assert main(["report", *runs, "--output", str(page)]) == 2
    assert re.fullmatch(f"clipo report: {message}.*\n", capsys.readouterr().err)
    assert not page.exists()


@pytest.mark.parametrize(
    "line", ["{", "[" * 10_000, '{"step": 1, "step": 2}', "\x00\x00"], ids=["cut", "deep", "twice", "nul"]
)
def test_a_line_that_is_no_json_is_passed_over(line: str, tmp_path: Path) -> None:
    before = load_metrics(write_run(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a") as opened:
        opened.write(f"{line}\n")
    assert load_metrics(tmp_path) == before
