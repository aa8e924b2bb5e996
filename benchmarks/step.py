"""Where a step of the demo goes: `python benchmarks/step.py [--rounds 40] [--config FILE.yaml] [--output FILE.json]`.

Trains with stop-watches around what the trainer calls, and shows the median of each part next to that of a whole step.
The contrastive part is pooling, head, loss, reward and advantages; it should be at most 5 % of a step.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import arguments_parser, publish, timed

from clipo_train.config.files import load_config
from clipo_train.report import load_metrics
from clipo_train.trainer import Trainer

WARM_UP = 2
LIMITS = {"contrastive": 0.05}
DEMO = Path(__file__).parents[1] / "examples" / "configs" / "demo.yaml"


def charge(trainer: Trainer, owner: Any, name: str, part: str) -> None:
    """Charges calls of a method to a part of the trainer's clock."""
    method: Callable[..., Any] = getattr(owner, name)

    def charged(*arguments: Any, **named: Any) -> Any:
        with trainer.clock(part):
            return method(*arguments, **named)

    setattr(owner, name, charged)


def step_parts(config: Path, steps: int) -> dict[str, float]:
    """Median seconds of each part of a step, and of the whole as `step`."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--run_dir", f"{folder}/run", "--steps", str(steps), "--evaluation.every", "0"]
        trainer = Trainer(load_config(config, arguments))
        charge(trainer, trainer.accelerator, "backward", "backward")
        charge(trainer, trainer.accelerator, "clip_grad_norm_", "optimizer")
        charge(trainer, trainer.learner.optimizer, "step", "optimizer")
        charge(trainer, trainer.learner.optimizer, "zero_grad", "optimizer")
        charge(trainer, trainer.engine, "sync", "sync")
        trainer.train()
        rows = load_metrics(Path(folder) / "run")[1 + WARM_UP :]
    seconds = {
        name.removeprefix("time/"): statistics.median(row[name] for row in rows)
        for name in rows[0]
        if name.startswith("time/")
    }
    update, whole = seconds.pop("update"), seconds.pop("step")
    seconds["forward and loss"] = update - seconds["backward"] - seconds["optimizer"] - seconds["sync"]
    seconds["rest"] = whole - sum(seconds.values())
    return seconds | {"step": whole}


def main() -> None:
    parser = arguments_parser(__doc__, rounds=40)
    parser.add_argument("--config", type=Path, default=DEMO)
    arguments = parser.parse_args()
    parts = step_parts(arguments.config, arguments.rounds)
    whole = parts.pop("step")
    rows = [
        timed(f"{part} / step of {arguments.config.stem}", own, whole, LIMITS.get(part)) for part, own in parts.items()
    ]
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
