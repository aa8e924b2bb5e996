"""A study's page: what was compared, what came out, and what could have been seen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from clipo_train.errors import ConfigError
from clipo_train.report.charts import drawing
from clipo_train.report.page import render, write_page
from clipo_train.study.analysis import Analysis, Comparison, Interval
from clipo_train.study.config import START, StudyConfig
from clipo_train.study.runner import MACHINE, Result
from clipo_train.terminal import plain

_FOUND, _NOT_FOUND = "#d62728", "#7f7f7f"
_SMALLEST = 1e-4


def write_study(study: StudyConfig, results: Sequence[Result], analysis: Analysis) -> Path:
    """Writes `study.html`, of results and what they say, into the study's folder, and returns its path."""
    page = render(
        "study.html.j2",
        study=study,
        facts=facts(study, results),
        analysis=analysis,
        arms=[arm for arm in (START, *study.arms) if arm in analysis.means],
        start=START,
        pairs=_pairs(analysis),
        figures=[forest(analysis, name) for name in study.primary],
        power=_power(study, analysis),
        text=measure_name,
        number=number,
        p_text=p_text,
    )
    return write_page(page, study.output / "study.html")


def facts(study: StudyConfig, results: Sequence[Result]) -> dict[str, Any]:
    """How much was run, and where."""
    runs = [result for result in results if result.arm in study.arms]
    path = study.output / MACHINE
    return {
        "runs": len(runs),
        "arms": len({result.arm for result in runs}),
        "seeds": len({result.seed for result in runs}),
        "hours": sum(result.seconds for result in results) / 3600,
        "machine": _machine(path) if path.exists() else {},
    }


def _machine(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"output: expected JSON in {str(path)!r}, got something else: {error}") from None


def measure_name(name: str) -> str:
    """`eval/heldout/process_wrong_among_right` -> `heldout: process wrong among right`."""
    *place, metric = name.removeprefix("eval/").split("/")
    return f"{'/'.join(place)}: {metric.replace('_at_', '@').replace('_', ' ')}"


def number(value: Interval | None, *, signed: bool = False) -> str:
    """A mean and its interval, to three or four decimals."""
    if value is None:
        return "–"
    digits = 4 if max(map(abs, value)) < 0.01 else 3
    shown = [f"{part:{'+' if signed else ''}.{digits}f}" for part in value]
    return shown[0] if value.low == value.high else f"{shown[0]} ({shown[1]} to {shown[2]})"


def p_text(p: float) -> str:
    """A p-value, no smaller than random sign flips can tell."""
    return "–" if p != p else f"< {_SMALLEST:.4f}" if p <= _SMALLEST else f"{p:.2g}"


def forest(analysis: Analysis, name: str) -> Markup:
    """The differences of one measure with their intervals, each arm against the first that it is compared with."""
    chosen: dict[str, Comparison] = {}
    for comparison in analysis.comparisons:
        if comparison.measure == name:
            chosen.setdefault(comparison.arm, comparison)
    rows = [*chosen.values()]

    def paint(axes: Any) -> None:
        for place, row in enumerate(rows):
            mean, low, high = row.difference
            color = _FOUND if row.found else _NOT_FOUND
            axes.plot([low, high], [place, place], color=color, linewidth=2)
            axes.plot([mean], [place], marker="o", color=color, markerfacecolor=color if row.found else "none")
        axes.axvline(0, color="#808080", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [f"{row.arm} − {row.against}" for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(f"difference in {measure_name(name)}")
        axes.grid(axis="x", alpha=0.25)

    told = "; ".join(f"{row.arm} less {row.against} {number(row.difference, signed=True)}" for row in rows)
    return drawing(f"Differences in {measure_name(name)}: {told}.", (8, 1 + 0.24 * len(rows)), paint)


def study_table(study: StudyConfig, analysis: Analysis) -> Table:
    """The primary measures' differences, for the terminal; those that are found after correction marked."""
    title = f"{study.title}: differences, 95 % intervals; * found after correction for {analysis.tests} tests"
    table = Table(title=plain(title))
    table.add_column("arm − against", no_wrap=True)
    for name in study.primary:
        table.add_column(plain(measure_name(name)), justify="right")
    for (arm, other), comparisons in _pairs(analysis).items():
        cells = [comparisons.get(name) for name in study.primary]
        shown = [
            f"{number(cell.difference, signed=True)}{' *' if cell.found else ''}" if cell else "–" for cell in cells
        ]
        table.add_row(plain(f"{arm} − {other}"), *shown)
    return table


def _pairs(analysis: Analysis) -> dict[tuple[str, str], dict[str, Comparison]]:
    pairs: dict[tuple[str, str], dict[str, Comparison]] = {}
    for comparison in analysis.comparisons:
        pairs.setdefault((comparison.arm, comparison.against), {})[comparison.measure] = comparison
    return pairs


def _power(study: StudyConfig, analysis: Analysis) -> Mapping[str, tuple[float, float]]:
    """Of each primary measure, the median over pairs of what could be detected, and the largest."""
    found = {}
    for name in study.primary:
        values = sorted(row.detectable for row in analysis.comparisons if row.measure == name)
        if values:
            found[name] = (values[len(values) // 2], values[-1])
    return found
