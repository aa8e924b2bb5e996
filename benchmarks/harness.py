"""Timing and memory of functions, several of them side by side, and what machine it was."""

import argparse
import datetime as dt
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


def in_fresh_process(program: str, *arguments: str) -> str:
    """What a program prints with these arguments and the usual malloc."""
    environment = {name: value for name, value in os.environ.items() if name not in _KEEP_BUFFERS}
    command = [sys.executable, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout  # noqa: S603


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
    before = status_bytes("VmRSS")
    function()
    return status_bytes("VmHWM") - before


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


class Row(NamedTuple):
    """One comparison; `wanted` bounds the ratio of ours to the other."""

    what: str
    ours: str
    other: str
    ratio: float
    wanted: float | None


def timed(what: str, ours: float, other: float, wanted: float | None = None) -> Row:
    """A comparison of seconds."""
    return Row(what, seconds(ours), seconds(other), ours / other, wanted)


def sized(what: str, ours: float, other: float, wanted: float | None = None) -> Row:
    """A comparison of bytes."""
    return Row(what, f"{ours / 2**20:.0f} MiB", f"{other / 2**20:.0f} MiB", ours / other, wanted)


def seconds(value: float) -> str:
    return f"{value * 1e6:.0f} us" if value < 1e-3 else f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def arguments_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark takes: `--rounds` and `--output`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--output", type=Path, help="a JSON file to write; the docs draw benchmarks/results/*.json")
    return parser


def publish(rows: Sequence[Row], output: Path | None) -> None:
    """The rows as a table, and as JSON if there is a file to write."""
    table = Table("what", "ours", "other", "ratio", "wanted", "met")
    for row in rows:
        met = "" if row.wanted is None else "yes" if row.ratio <= row.wanted else "NO"
        table.add_row(*row[:3], f"{row.ratio:.3g}", "" if row.wanted is None else f"<= {row.wanted:.3g}", met)
    Console(width=160).print(table, machine())
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "rows": [row._asdict() for row in rows]}
        output.write_text(json.dumps(result, indent=1) + "\n")


def status_bytes(field: str) -> int:
    """This process's `VmRSS`, memory that is resident, or `VmHWM`, the most that ever was (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
