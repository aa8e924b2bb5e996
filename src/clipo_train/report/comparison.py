"""Several runs on one page: seeds as a mean within a band, configurations as curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from clipo_train.report.charts import Figure, Line, figures, svg
from clipo_train.report.page import COLUMNS, render, write_page
from clipo_train.report.runs import Curve, evaluation_sets, load_curves, points

Numbers = NDArray[np.float64]

_BOOTSTRAP_FROM = 5
_RESAMPLES = 2000
_LAST_STEPS = 10
_TRAINING = {
    "rollout/accuracy": "training: outcome accuracy",
    "rollout/response_length": "training: response length",
    "policy/entropy": "training: entropy",
    "time/step": "training: seconds per step",
}
_NOT_FINAL = ("_low", "_high", "/verifier_timeouts")
_COLORS = [f"#{color}" for color in ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "17becf")]
_DASHES: list[tuple[float, ...]] = [(), (5, 2), (1, 1.5), (5, 1.5, 1, 1.5)]


class Spread(NamedTuple):
    """Mean over seeds, and its interval; of a single seed all three are the same."""

    mean: Numbers
    low: Numbers
    high: Numbers


def write_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Writes a page that compares runs, and returns its path.

    Raises:
        ConfigError: A run without metrics or configuration; two runs of one seed and configuration.
    """
    curves = load_curves(run_dirs)
    metrics = [row for curve in curves for run in curve.runs for row in run.metrics]
    drawn = [(figure, panels) for figure in figures(evaluation_sets(metrics)) if (panels := _draw(figure, curves))]
    keys = dict.fromkeys(key for row in metrics for key in row if key.startswith("eval/"))
    page = render(
        "comparison.html.j2",
        count=len(run_dirs),
        bootstrap_from=_BOOTSTRAP_FROM,
        last_steps=_LAST_STEPS,
        legend=[{"curve": curve, "line": _style(place)} for place, curve in enumerate(curves)],
        finals=_finals(curves, [*(key for key in keys if not key.endswith(_NOT_FINAL)), *_TRAINING]),
        figures=drawn,
    )
    return write_page(page, path)


def spread(values: Numbers) -> Spread:
    """Mean and interval over runs, at every step.

    From 5 runs on it is the 95 % percentile bootstrap interval of the mean, with the same resampled runs at all steps;
    of fewer, the smallest and the largest value.

    Args:
        values: Runs x steps.
    """
    count = len(values)
    if count < _BOOTSTRAP_FROM:
        return Spread(values.mean(0), values.min(0), values.max(0))
    weights = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=_RESAMPLES) / count
    low, high = np.quantile(weights @ values, (0.025, 0.975), axis=0)
    return Spread(values.mean(0), low, high)


def _finals(curves: Sequence[Curve], keys: Sequence[str]) -> list[tuple[str, list[tuple[str, str] | None]]]:
    """For every metric its heading and, for every curve, mean and interval; None where a run has not logged it."""
    return [(_heading(key), [_final(curve, key) for curve in curves]) for key in keys]


def _final(curve: Curve, key: str) -> tuple[str, str] | None:
    last = 1 if key.startswith("eval/") else _LAST_STEPS
    logged = [points(run.metrics, key)[1][-last:] for run in curve.runs]
    if not all(logged):
        return None
    mean, low, high = (float(value[0]) for value in spread(np.array([[np.mean(values)] for values in logged])))
    digits = 1 if key.endswith("length") else 3
    between = f"{low:.{digits}f}–{high:.{digits}f}" if len(logged) > 1 else ""
    return f"{mean:.{digits}f}", between


def _heading(key: str) -> str:
    if key in _TRAINING:
        return _TRAINING[key]
    _, name, metric = key.split("/")
    return f"{name}: {COLUMNS.get(metric, metric.replace('_at_', '@').replace('_', ' '))}"


def _style(place: int) -> dict[str, Any]:
    """Colour and dashes of a curve: different ones for as many curves as there may be on a page that can be read."""
    return {"color": _COLORS[place % len(_COLORS)], "dashes": _DASHES[place % len(_DASHES)]}


def _draw(figure: Figure, curves: Sequence[Curve]) -> list[Markup]:
    """A panel for every metric of the figure that a curve has, as inline SVG."""
    drawn = []
    for panel in figure.panels:
        series = panel.series if panel.total is None else {panel.total: "whole step"}
        for key, name in series.items():
            lines = [line for place, curve in enumerate(curves) if (line := _line(curve, key, place)).steps]
            if lines:
                label = panel.label if len(series) == 1 and panel.total is None else f"{panel.label}: {name}"
                ends = "; ".join(f"{line.name} ends at {line.values[-1]:.3g}" for line in lines)
                description = f"{figure.title}: {label}, {key}. {ends}."
                drawn.append(svg(description, label, lines, legend=False))
    return drawn


def _line(curve: Curve, key: str, place: int) -> Line:
    """The curve's mean and band, at the steps that all its runs have logged."""
    logged = [dict(zip(*points(run.metrics, key), strict=True)) for run in curve.runs]
    steps = sorted(set.intersection(*(set(values) for values in logged)))
    mean, low, high = spread(np.array([[values[step] for step in steps] for values in logged]))
    band = {"low": low.tolist(), "high": high.tolist()} if len(logged) > 1 else {}
    return Line(curve.label, steps, mean.tolist(), **band, **_style(place))
