"""A run as one self-contained HTML page, and as tables for the terminal."""

import io
import json
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from rich.table import Table

from clipo_train.errors import ConfigError

Metrics = list[dict[str, float]]

_SHOWN_COMPLETIONS = 12
_COLUMNS = {
    "accuracy": "outcome accuracy",
    "process_accuracy": "process accuracy",
    "process_wrong_among_right": "process-wrong among right",
    "response_length": "response length",
}


class Panel(NamedTuple):
    """One pair of axes: its y label, and metric -> name in the legend."""

    label: str
    series: dict[str, str]
    stacked: bool = False


class Figure(NamedTuple):
    """Panels side by side, with what they show and what is healthy."""

    title: str
    caption: str
    panels: tuple[Panel, ...]


def load_metrics(run_dir: Path) -> Metrics:
    """The metrics of a run, one dict per step in order; of a step that was logged twice, the later line.

    Raises:
        ConfigError: There are none.
    """
    rows = {int(row["step"]): row for row in _read_lines(run_dir / "metrics.jsonl")}
    if not rows:
        raise ConfigError(f"run: wanted a folder with a metrics.jsonl of at least one line, got {str(run_dir)!r}")
    return [rows[step] for step in sorted(rows)]


def write_report(run_dir: Path) -> Path:
    """Writes `run_dir/report.html` from what the run has logged so far, and returns its path.

    Raises:
        ConfigError: The run has logged nothing.
    """
    metrics = load_metrics(run_dir)
    figures = [(figure, panels) for figure in _figures(metrics) if (panels := _draw(figure, metrics))]
    config = run_dir / "config.yaml"
    environment = Environment(
        loader=PackageLoader("clipo_train"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        name=run_dir.resolve().name,
        steps=int(metrics[-1]["step"]),
        columns=list(_COLUMNS.values()),
        summary=_summary(metrics),
        figures=figures,
        completions=_last_completions(run_dir),
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        versions={name: version(name) for name in ("clipo", "torch", "transformers", "accelerate")},
    )
    path = run_dir / "report.html"
    unfinished = run_dir / ".report.html"
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
    return path


def summary_table(metrics: Metrics) -> Table:
    """Each evaluation set before and after, for the terminal."""
    table = Table(title="before → after")
    table.add_column("evaluation set")
    for column in _COLUMNS.values():
        table.add_column(column, justify="right")
    for name, cells in _summary(metrics):
        table.add_row(name, *cells)
    return table


def completions_table(run_dir: Path) -> Table:
    """Sample completions of the last step, for the terminal."""
    table = Table(title="sample completions of the last step")
    for column in ("prompt", "completion", "answer", "verdict", "contrastive", "advantage"):
        table.add_column(column, overflow="fold")
    for row in _last_completions(run_dir):
        table.add_row(
            _shorten(row["prompt"]),
            _shorten(row["completion"]),
            row["answer"],
            row["verdict"],
            f"{row['contrastive']:+.3f}",
            f"{row['advantage']:+.2f}",
        )
    return table


def _shorten(text: str, length: int = 160) -> str:
    text = text.replace("[", r"\[")  # rich would read markup
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


def _read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSON lines file; a line cut short by a kill is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _summary(metrics: Metrics) -> list[tuple[str, list[str]]]:
    """For every evaluation set, `before → after` of each column."""
    sets = dict.fromkeys(key.split("/")[1] for row in metrics for key in row if key.startswith("eval/"))
    return [(name, [_before_after(metrics, f"eval/{name}/{column}") for column in _COLUMNS]) for name in sets]


def _before_after(metrics: Metrics, key: str) -> str:
    values = [row[key] for row in metrics if key in row]
    if not values:
        return "–"
    digits = 1 if key.endswith("length") else 3
    return " → ".join(f"{value:.{digits}f}" for value in (values[0], values[-1])[: len(values)])


def _last_completions(run_dir: Path) -> list[dict[str, Any]]:
    rows = list(_read_lines(run_dir / "completions.jsonl"))
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    process = {True: ", process right", False: ", process wrong", None: ""}
    return [
        row | {"verdict": ("right" if row["success"] else "wrong") + process[row["process"]]}
        for row in last[:_SHOWN_COMPLETIONS]
    ]


def _figures(metrics: Metrics) -> tuple[Figure, ...]:
    sets = dict.fromkeys(key.split("/")[1] for row in metrics for key in row if key.startswith("eval/"))
    evaluated = {f"eval/{name}/accuracy": name for name in sets}
    process = {f"eval/{name}/process_accuracy": name for name in sets}
    return (
        Figure(
            "Accuracy",
            "Share of completions whose answer, and whose every step, is right. Should rise on all sets.",
            (
                Panel("outcome accuracy", {"rollout/accuracy": "training"} | evaluated),
                Panel("process accuracy", {"rollout/process_accuracy": "training"} | process),
            ),
        ),
        Figure(
            "Reward",
            "What the policy is trained on: outcome plus contrastive. The contrastive part lies between its floor "
            "and 0; at the floor it tells rollouts apart no more.",
            (
                Panel("outcome reward", {"reward/outcome": "outcome", "reward/total": "total"}),
                Panel("contrastive reward", {"reward/contrastive": "contrastive"}),
            ),
        ),
        Figure(
            "Exploration and step size",
            "Entropy per token should fall slowly, not collapse to 0; clip fraction and KL should stay small.",
            (
                Panel("entropy (nats per token)", {"policy/entropy": "entropy"}),
                Panel("clip fraction, KL (nats)", {"policy/clip_fraction": "clip fraction", "policy/approx_kl": "KL"}),
            ),
        ),
        Figure(
            "Similarity within groups",
            "Mean cosine between correct rollouts, and between correct and wrong ones. The first should lie above the "
            "second: that gap is what the head has learnt.",
            (
                Panel(
                    "cosine",
                    {
                        "contrastive/similarity_positive": "correct with correct",
                        "contrastive/similarity_negative": "correct with wrong",
                    },
                ),
                Panel("contrastive loss", {"contrastive/loss": "loss"}),
            ),
        ),
        Figure(
            "Who gets a signal",
            "Share of rollouts that are anchors, and so get a contrastive reward; of anchors clamped at the floor, who "
            "all get the same one; and of degenerate groups, of one constant reward, which teach nothing.",
            (
                Panel(
                    "share",
                    {
                        "contrastive/anchor_fraction": "anchors",
                        "contrastive/clamp_fraction": "at the floor",
                        "groups/degenerate": "degenerate groups",
                    },
                ),
            ),
        ),
        Figure(
            "Where a step's time goes",
            "Seconds in each part of a step. The contrastive part (pooling, head, loss, reward) should be a few "
            "percent.",
            (
                Panel(
                    "seconds",
                    {f"time/{part}": part for part in ("rollout", "verify", "score", "contrastive", "update")},
                    stacked=True,
                ),
            ),
        ),
    )


def _points(metrics: Metrics, key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in metrics if key in row and math.isfinite(row[key])]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _draw(figure: Figure, metrics: Metrics) -> list[Markup]:
    """The figure's panels as inline SVG, without those that the run has nothing to show in."""
    return [
        _svg(f"{figure.title}: {panel.label}. {figure.caption}", panel, metrics)
        for panel in figure.panels
        if any(_points(metrics, key)[0] for key in panel.series)
    ]


def _svg(description: str, panel: Panel, metrics: Metrics) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    grey = "#808080"  # readable on white and on black
    style: Any = {
        "svg.hashsalt": description,
        "svg.fonttype": "none",
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "text.color"), grey),
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        canvas = Canvas(figsize=(4.8, 3.2), layout="constrained")
        _plot(canvas.subplots(), panel, metrics)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return Markup(svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(description), 1))  # noqa: S704


def _plot(axes: Any, panel: Panel, metrics: Metrics) -> None:
    lines: Sequence[tuple[str, tuple[list[float], list[float]]]] = [
        (name, points) for key, name in panel.series.items() if (points := _points(metrics, key))[0]
    ]
    if panel.stacked:
        steps = sorted(set.intersection(*(set(points[0]) for _, points in lines)))
        heights = [[dict(zip(*points, strict=True))[step] for step in steps] for _, points in lines]
        axes.stackplot(steps, heights, labels=[name for name, _ in lines], alpha=0.8)
    else:
        for name, points in lines:
            axes.plot(*points, label=name, marker="o" if len(points[0]) < 12 else None, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(panel.label)
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(lines), 3))
