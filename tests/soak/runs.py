"""Runs that are told to end, how they answer, and what must be true after each."""

import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kill_at

PATIENCE, LONGEST = 120.0, 1800.0
"""Seconds after which a run that was told to end hangs, and one that was not."""

_NOTICE = re.compile(r"resume: no checkpoint in '.*' yet: the run begins")
_STOPPED = re.compile(
    r"clipo train: stopped( after step \d+, (there is no checkpoint yet|the last checkpoint is '.*'))?; "
    r"to go on: clipo train .* --resume"
)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


class SoakError(Exception):
    """A run answered by something else than the same numbers or one line."""


class Run:
    """`clipo train` in a session of its own, forked from this process, or started from a cold interpreter.

    Args:
        arguments: Command-line arguments of `clipo`.
        cold: Start an interpreter.
        order: Call at which to die, as `kill_at` takes it.
        largest: Bytes that a file may have.
    """

    def __init__(self, arguments: Sequence[str], *, cold: bool = False, largest: int | None = None, **order: Any):
        self.error = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            if cold:
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                os.dup2(self.error.fileno(), 2)
                os.execv(sys.executable, [sys.executable, "-m", "clipo_train.cli", *arguments])  # noqa: S606
            os._exit(kill_at.run({"arguments": list(arguments), **order}, self.error.fileno()))
        while not self.ended() and os.getsid(self.pid) != self.pid:
            time.sleep(0.001)

    def send(self, number: int, *, group: bool) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def lines(self, patience: float) -> list[str]:
        """What it has written to standard error, but for notices, once it has ended with all its processes."""
        deadline = time.monotonic() + patience
        while not (self.ended() and not _alive(self.pid)):
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise SoakError("the run hangs" if self.status is None else f"processes are left: {_alive(self.pid)}")
            time.sleep(0.01)
        self.error.seek(0)
        return [line for line in self.error.read().splitlines() if not _NOTICE.fullmatch(line)]


def answer(run: Run, *, killed: bool = False, asked: int = 0, refusal: str | None = None) -> str:
    """How a run has ended, in words.

    Args:
        run: It.
        killed: It may have been killed.
        asked: The signal by which it may have been asked to stop.
        refusal: Pattern of the line with which it may have given up.

    Raises:
        SoakError: It has ended in another way.
    """
    lines = run.lines(PATIENCE if killed or asked else LONGEST)
    lines = [line for line in lines if not (killed and "resource_tracker" in line)]  # Python's, which tidies up
    match run.status, lines:
        case 0, []:
            return "finished"
        case -9, [] if killed:
            return "killed"
        case status, [line] if asked and status == 128 + asked and _STOPPED.fullmatch(line):
            return f"{status}: {line.partition('; to go on')[0]}"
        case 2, [line] if refusal and re.fullmatch(f"clipo train: {refusal}", line):
            return f"2: {line}"
    raise SoakError(f"status {run.status}, {len(lines)} lines: " + "\n".join(lines)[-3000:])


def logged(run_dir: Path) -> int:
    """The last step that a run has logged, or -1."""
    try:
        with (run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            steps = re.findall(rb'^\{"step": (\d+)', file.read(), re.MULTILINE)
    except FileNotFoundError:
        return -1
    return int(steps[-1]) if steps else -1


def _alive(session: int) -> list[str]:
    """Commands of the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = path.joinpath("stat").read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, of = rest.split()[:4]
        if int(of) == session and state not in "ZX":
            found.append(name)
    return found
