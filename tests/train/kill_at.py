"""Runs `clipo` and kills itself by SIGKILL at a given point: `kill_at.py POINT STEP ARGUMENT...`.

Points: `logged`, after the step's metrics are on disk; `saving`, in the middle of writing the step's checkpoint;
`saved`, after all of it is written but before it gets its name.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from clipo_train import checkpoint, cli
from clipo_train.metrics import MetricsLog


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    point, step = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    if point == "logged":
        log = MetricsLog.log

        def log_and_die(self: MetricsLog, at: int, metrics: Any) -> None:
            log(self, at, metrics)
            if at == step:
                die()

        MetricsLog.log = log_and_die  # type: ignore[method-assign]
    else:
        name = "_signature" if point == "saving" else "_flush"
        original = getattr(checkpoint, name)

        def maybe_die(argument: Any) -> Any:
            if (Path(config_run_dir()) / "checkpoints" / f".unfinished-{step:08d}").exists():
                die()
            return original(argument)

        setattr(checkpoint, name, maybe_die)
    sys.exit(cli.main(sys.argv[3:]))


def config_run_dir() -> str:
    return sys.argv[sys.argv.index("--run_dir") + 1]


if __name__ == "__main__":
    main()
