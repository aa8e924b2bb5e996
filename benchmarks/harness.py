"""Timing and memory of functions, several of them side by side, and what machine it was."""

import datetime as dt
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

# glibc gives large freed buffers back to the system, and every new one then costs page faults: as much as the work
# itself, and depending on what ran before. Keeping them makes runs agree.
_KEEP_BUFFERS = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28)}


def keep_freed_buffers() -> None:
    """Starts this program anew with a malloc that keeps what is freed."""
    if any(os.environ.get(name) != value for name, value in _KEEP_BUFFERS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | _KEEP_BUFFERS)  # noqa: S606


def ordinary_environment() -> dict[str, str]:
    """The environment for a child whose malloc is to be the usual one."""
    return {name: value for name, value in os.environ.items() if name not in _KEEP_BUFFERS}


def time_side_by_side(candidates: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median seconds a call of each, called in turn so that a drift of the machine's speed hits all alike.

    The order changes from round to round, so that nobody always finds the caches as the same other one left them.
    """
    for function in candidates.values():
        for _ in range(3):
            function()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order, shuffle = list(candidates.items()), random.Random(0).shuffle  # noqa: S311 - an order, no secret
    for _ in range(rounds):
        shuffle(order)
        for name, function in order:
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def extra_memory(function: Callable[[], object]) -> int:
    """Bytes by which a call raises this process's peak of resident memory above what it was before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
    }


def print_ratios(peer: str, rows: dict[str, tuple[float, float]]) -> None:
    """A table of our seconds and a peer's."""
    table = Table("what", "ours", peer, "ratio")
    for name, (ours, theirs) in rows.items():
        table.add_row(name, f"{ours * 1e3:.3f} ms", f"{theirs * 1e3:.3f} ms", f"{ours / theirs:.3g}")
    Console(width=120).print(table, machine())


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
