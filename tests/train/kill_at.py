"""Runs `clipo` in a forked process and kills that by SIGKILL, after some seconds or at a given call.

Importing torch takes longer than a whole run of a tiny model, so it is done once, here, and each run is a fork of this
process. Reads orders, one JSON object a line, and answers each with one.

    {"arguments": ["train", ...], "seconds": 0.4}
    {"arguments": ["train", ...], "call": "clipo_train.metrics:MetricsLog.log", "count": 3, "done": true}

`done` kills after that call has returned, and not before it. The answer is

    {"status": ..., "seconds": ..., "error": ...}
"""

import functools
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

import matplotlib.figure
import pebble  # noqa: F401 - as trainer below, so that no run has to
import torch

from clipo_train import cli, trainer  # noqa: F401


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(call: str, count: int, *, done: bool) -> None:
    """Replaces a function or method by one that kills this process the n-th time."""
    module, _, path = call.partition(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, name), iter(range(1, count + 1))

    @functools.wraps(original)
    def deadly(*arguments: Any, **options: Any) -> Any:
        last = next(calls, None) == count
        if last and not done:
            die()
        result = original(*arguments, **options)
        if last:
            die()
        return result

    setattr(owner, name, deadly)


def run(order: dict[str, Any], error: int) -> int:
    """In the forked process: `clipo`, quietly."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(error, 2)
    torch.set_num_threads(1)
    matplotlib.figure.Figure.savefig = lambda _, file, **__: file.write("<svg></svg>")  # most of a short run's time
    if "call" in order:
        die_at(order["call"], order["count"], done=order.get("done", False))
    try:
        return cli.main(order["arguments"])
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as error:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(run(order, error.fileno()))
        ended, deadline = 0, started + order.get("seconds", 300)
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        error.seek(0)
        seconds = time.monotonic() - started
        return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds, "error": error.read()}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
