"""Where numbers go: stop-watches around a step's parts, JSON lines, Accelerate's trackers, and the terminal."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clipo_train import jsonl
from clipo_train.errors import ConfigError


class Stopwatch:
    """Seconds spent in each named part of a step.

    On an accelerator it waits for the device at the end of a part, so that the time is charged to its cause.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the block's time to `part`."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[part] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """The parts as `time/<part>`, and starts anew."""
        metrics = {f"time/{part}": seconds for part, seconds in self.seconds.items()}
        self.seconds.clear()
        return metrics


def defined(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without those that do not exist in this step, such as the mean over no pairs, which ops give as NaN."""
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def require_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that are not installed, which Accelerate would leave out in silence.

    Raises:
        ConfigError: One is not.
    """
    installed = {tracker.value for tracker in get_available_trackers()}
    for name in names:
        if name not in installed:
            raise ConfigError(f"logging.trackers: expected an installed {name}, got none; `pip install {name}`")


class MetricsLog:
    """Appends metrics to `run_dir/metrics.jsonl` and hands them to the trackers; samples to `completions.jsonl`.

    Lines are flushed at once, so that a killed run keeps them. A value that is not finite is written as null, and
    `nonfinite_metrics` counts them. Only the main process writes.
    """

    def __init__(self, run_dir: Path, accelerator: Accelerator) -> None:
        self.metrics_path = run_dir / "metrics.jsonl"
        self.completions_path = run_dir / "completions.jsonl"
        self.accelerator = accelerator

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line for a step."""
        if not self.accelerator.is_main_process:
            return
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if len(finite) < len(values):
            finite["nonfinite_metrics"] = len(values) - len(finite)
        self._append(self.metrics_path, [{"step": step, **dict.fromkeys(values), **finite}])
        self.accelerator.log(finite, step=step)

    def completions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One line for each sample completion."""
        if self.accelerator.is_main_process:
            self._append(self.completions_path, rows)

    def rewind(self, step: int) -> int:
        """Drops what a killed run logged after its last checkpoint, which is about to happen again.

        Returns:
            The last step that has a line of metrics, or -1.
        """
        for path in (self.metrics_path, self.completions_path):
            if path.exists() and not path.is_file():  # a pipe would wait for ever
                raise ConfigError(f"run_dir: expected a file or nothing, got {str(path)!r}")
            if path.exists():
                kept = [line for _, line in jsonl.read_lines(path, errors="replace") if _step_of(line) <= step]
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8", newline="")
                unfinished.replace(path)
        return self._last_step()

    def _last_step(self) -> int:
        lines = jsonl.read_lines(self.metrics_path) if self.metrics_path.exists() else ()
        return max((int(_step_of(line)) for _, line in lines), default=-1)

    def _append(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        jsonl.append(path, rows)


def _step_of(line: str) -> float:
    """The step of a JSON line; infinity for a line cut short by a kill."""
    try:
        return float(jsonl.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def progress_bar(*, visible: bool = True) -> Progress:
    """A bar with the steps done, the time, and a `note` of the few numbers that matter."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        disable=not visible,
    )
