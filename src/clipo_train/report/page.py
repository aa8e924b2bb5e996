"""The report of one run."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from clipo_train.errors import ConfigError, shortened
from clipo_train.report.charts import Figure, Line, figures, svg
from clipo_train.report.runs import Metrics, evaluation_sets, load_metrics, notices, points, read_lines
from clipo_train.terminal import plain
from clipo_train.whole_file import write_whole

COLUMNS = {
    "accuracy": "outcome accuracy",
    "process_accuracy": "process accuracy",
    "process_wrong_among_right": "process-wrong among right",
    "response_length": "response length",
}
"""What is told of every evaluation set: metric -> heading."""

_SHOWN_COMPLETIONS = 12


@dataclass
class _Sample:
    """A line of `completions.jsonl`."""

    step: int
    prompt: str
    completion: str
    answer: str
    success: bool
    process: bool | None
    outcome: float
    contrastive: float
    advantage: float


_SAMPLE = TypeAdapter(_Sample)


def write_report(run_dir: Path, path: Path | None = None) -> Path:
    """Writes `run_dir/report.html`, or another file, from what the run has logged so far, and returns its path.

    Raises:
        ConfigError: The run has logged nothing, or there cannot be such a file.
    """
    metrics = load_metrics(run_dir)
    drawn = [(figure, panels) for figure in figures(evaluation_sets(metrics)) if (panels := _draw(figure, metrics))]
    config = run_dir / "config.yaml"
    page = render(
        "report.html.j2",
        name=run_dir.resolve().name,
        steps=int(metrics[-1]["step"]),
        columns=list(COLUMNS.values()),
        notices=notices(metrics),
        summary=_summary(metrics),
        figures=drawn,
        completions=_last_completions(run_dir),
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
    )
    return write_page(page, path or run_dir / "report.html")


def render(template: str, **values: Any) -> str:
    """A page from one of this package's templates."""
    environment = Environment(
        loader=PackageLoader("clipo_train"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    versions = {name: version(name) for name in ("clipo", "torch", "transformers", "accelerate")}
    return environment.get_template(template).render(versions=versions, **values)


def write_page(page: str, path: Path) -> Path:
    """Writes a page whole or not at all, and returns its path.

    Raises:
        ConfigError: There cannot be such a file.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"output: expected a file in a folder that exists, got {str(path)!r}")
    try:
        write_whole(path, page)
    except OSError as error:
        raise ConfigError(f"output: expected a file that can be written, got {str(path)!r}: {error.strerror}") from None
    return path


def summary_table(metrics: Metrics) -> Table:
    """Each evaluation set before and after, for the terminal."""
    table = Table(title="before → after")
    table.add_column("evaluation set")
    for column in COLUMNS.values():
        table.add_column(column, justify="right")
    for name, cells in _summary(metrics):
        table.add_row(plain(name), *cells)
    return table


def completions_table(run_dir: Path) -> Table:
    """Sample completions of the last step, for the terminal."""
    table = Table(title="sample completions of the last step")
    for column in ("prompt", "completion", "answer", "verdict", "contrastive", "advantage"):
        table.add_column(column, overflow="fold")
    for row in _last_completions(run_dir):
        table.add_row(
            plain(shortened(row["prompt"])),
            plain(shortened(row["completion"])),
            plain(shortened(row["answer"])),
            row["verdict"],
            f"{row['contrastive']:+.3f}",
            f"{row['advantage']:+.2f}",
        )
    return table


def _summary(metrics: Metrics) -> list[tuple[str, list[str]]]:
    """For every evaluation set, `before → after` of each column."""
    return [
        (name, [_before_after(metrics, f"eval/{name}/{column}") for column in COLUMNS])
        for name in evaluation_sets(metrics)
    ]


def _before_after(metrics: Metrics, key: str) -> str:
    values = [row[key] for row in metrics if key in row]
    if not values:
        return "–"
    digits = 1 if key.endswith("length") else 3
    return " → ".join(f"{value:.{digits}f}" for value in (values[0], values[-1])[: len(values)])


def _last_completions(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "completions.jsonl"
    rows = [_sample(path, row) for row in read_lines(path)]
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    process = {True: ", process right", False: ", process wrong", None: ""}
    return [
        row | {"verdict": ("right" if row["success"] else "wrong") + process[row["process"]]}
        for row in last[:_SHOWN_COMPLETIONS]
    ]


def _sample(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    try:
        return asdict(_SAMPLE.validate_python(row))
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise ConfigError(
            f"run: expected sample completions in {str(path)!r}, got a line with {field} "
            f"{shortened(repr(row.get(field)))}"
        ) from None


def _draw(figure: Figure, metrics: Metrics) -> list[Markup]:
    """The figure's panels as inline SVG, without those that the run has nothing to show in."""
    drawn = []
    for panel in figure.panels:
        lines = [Line(name, *points(metrics, key)) for key, name in panel.series.items()]
        lines = [line for line in lines if line.steps]
        if lines:
            description = f"{figure.title}: {panel.label}. {figure.caption}"
            drawn.append(svg(description, panel.label, lines, stacked=panel.total is not None))
    return drawn
