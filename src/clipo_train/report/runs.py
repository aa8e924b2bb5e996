"""What run folders hold: metrics, completions, and the configurations by which runs are told apart."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipo_train import jsonl
from clipo_train.config.files import flatten
from clipo_train.config.yaml_files import read_yaml
from clipo_train.errors import ConfigError, shortened

Metrics = list[dict[str, float]]

_NOT_COMPARED = ("seed", "run_dir", "resume")
_ABSENT = "–"
_PARTS = 2
"""Slashes in a metric of an evaluation set: `eval/<set>/accuracy`."""
_SHOWN_STEPS = 10


class Run(NamedTuple):
    """A run's folder, what it has logged, and its configuration with dotted names."""

    folder: Path
    metrics: Metrics
    config: dict[str, Any]


class Curve(NamedTuple):
    """Runs that differ in their seed alone.

    Attributes:
        label: What sets them apart from the other curves, such as `clipo.enabled=False`.
        differing: The fields in which curves differ, and these runs' values.
        runs: At least one.
    """

    label: str
    differing: dict[str, str]
    runs: list[Run]


def load_metrics(run_dir: Path) -> Metrics:
    """The metrics of a run, one dict per step in order; of a step that was logged twice, the later line.

    A value that was not finite is NaN.

    Raises:
        ConfigError: There are none, or a line has something other than a step and numbers.
    """
    path = run_dir / "metrics.jsonl"
    found = [_numbers(path, row) for row in read_lines(path)]
    rows = {int(row["step"]): row for row in found}
    if not rows:
        raise ConfigError(f"run: expected a folder with a metrics.jsonl of at least one line, got {str(run_dir)!r}")
    return [rows[step] for step in sorted(rows)]


def read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSON lines file; a line that is no JSON, such as one cut short by a kill, is passed over.

    Raises:
        ConfigError: A line is JSON, but not an object.
    """
    for number, line in jsonl.read_lines(path, errors="replace") if path.is_file() else ():
        try:
            row = jsonl.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict):
            raise ConfigError(f"run: expected an object in line {number} of {str(path)!r}, got {type(row).__name__}")
        yield row


def _numbers(path: Path, row: dict[str, Any]) -> dict[str, float]:
    """A line of metrics, with NaN for null."""
    try:
        numbers = {name: math.nan if value is None else _number(value) for name, value in row.items()}
        if not math.isfinite(numbers["step"]) or any(
            name.startswith("eval/") and name.count("/") != _PARTS for name in row
        ):
            raise ValueError
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ConfigError(
            f"run: expected a step and numbers in each line of {str(path)!r}, got {shortened(repr(row))}"
        ) from None
    return numbers | {"step": int(numbers["step"])}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def nonfinite_steps(metrics: Metrics) -> dict[str, list[int]]:
    """Metrics that were not finite, and at which steps."""
    steps: dict[str, list[int]] = {}
    for row in metrics:
        for name, value in row.items():
            if not math.isfinite(value):
                steps.setdefault(name, []).append(int(row["step"]))
    return steps


def notices(metrics: Metrics) -> list[str]:
    """What went wrong in a run without ending it, a sentence each: skipped updates and values that were not finite."""
    skipped = [int(row["step"]) for row in metrics if row.get("policy/skipped_updates", 0) > 0]
    found = (
        [f"Updates skipped because their loss or gradient was not finite: steps {_listed(skipped)}."] if skipped else []
    )
    broken = nonfinite_steps(metrics).items()
    return found + [f"{name} was not finite: steps {_listed(steps)}." for name, steps in broken]


def _listed(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:_SHOWN_STEPS]))
    return shown if len(steps) <= _SHOWN_STEPS else f"{shown} and {len(steps) - _SHOWN_STEPS} more"


def points(metrics: Metrics, key: str) -> tuple[list[float], list[float]]:
    """The steps at which a metric was logged and finite, and its values."""
    rows = [row for row in metrics if key in row and math.isfinite(row[key])]
    return [row["step"] for row in rows], [row[key] for row in rows]


def evaluation_sets(metrics: Metrics) -> list[str]:
    """The evaluation sets that have metrics, in order of appearance."""
    return list(dict.fromkeys(key.split("/")[1] for row in metrics for key in row if key.startswith("eval/")))


def load_curves(run_dirs: Sequence[Path]) -> list[Curve]:
    """Runs by configuration, in order of appearance; seed and folder are no part of it.

    Raises:
        ConfigError: A folder without metrics or configuration; two runs of one seed in a curve, which would count the
            same evidence twice.
    """
    grouped: dict[str, list[Run]] = {}
    for run_dir in run_dirs:
        run = Run(run_dir, load_metrics(run_dir), _load_config(run_dir))
        compared = {name: value for name, value in run.config.items() if name not in _NOT_COMPARED}
        grouped.setdefault(json.dumps(compared, sort_keys=True, default=str), []).append(run)
    for runs in grouped.values():
        _require_different_seeds(runs)
    firsts = [runs[0].config for runs in grouped.values()]
    names = dict.fromkeys(name for config in firsts for name in config if name not in _NOT_COMPARED)
    fields = [name for name in names if any(config.get(name) != firsts[0].get(name) for config in firsts)]
    curves = []
    for runs in grouped.values():
        differing = {name: str(runs[0].config.get(name, _ABSENT)) for name in fields}
        label = ", ".join(f"{name}={value}" for name, value in differing.items())
        curves.append(Curve(label or "all runs", differing, runs))
    return curves


def _load_config(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"run: expected a folder with a config.yaml, got {str(run_dir)!r}")
    return flatten(read_yaml(path))


def _require_different_seeds(runs: Sequence[Run]) -> None:
    seen: dict[Any, Run] = {}
    for run in runs:
        seed = str(run.config.get("seed"))
        other = seen.setdefault(seed, run)
        if other is not run:
            raise ConfigError(
                f"run: expected one run of each seed and configuration, got seed {seed} in "
                f"{str(other.folder)!r} and in "
                f"{str(run.folder)!r}"
            )
