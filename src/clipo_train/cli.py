"""The `clipo` command: train, eval, report."""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clipo_train.errors import ConfigError

_USAGE = """\
usage: clipo train CONFIG.yaml [--field value ...]   train; `clipo train CONFIG.yaml --help` lists the fields
       clipo eval RUN|CONFIG.yaml [--field value ...] evaluate a run's final policy, or the model of a configuration
       clipo report RUN                               write RUN/report.html anew"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0, or 2 after a one-line error about something the user can mend.
    """
    commands = {"train": _train, "eval": _eval, "report": _report}
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if name in ("-h", "--help"):
        sys.stdout.write(_USAGE + "\n")
        return 0
    if name not in commands or not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help")):
        sys.stderr.write(_USAGE + "\n")
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        commands[name](rest)
    except ConfigError as error:
        sys.stderr.write(f"clipo {name}: {error}\n")
        return 2
    return 0


def _train(arguments: Sequence[str]) -> None:
    from clipo_train.config import load_config
    from clipo_train.report import completions_table, load_metrics, summary_table

    config = load_config(Path(arguments[0]), arguments[1:])
    from clipo_train.trainer import Trainer

    _quiet()
    trainer = Trainer(config)
    report = trainer.train()
    if not trainer.accelerator.is_main_process:
        return
    console = Console()
    console.print(completions_table(config.run_dir))
    console.print(summary_table(load_metrics(config.run_dir)))
    console.print(f"Report: {report}", soft_wrap=True)


def _eval(arguments: Sequence[str]) -> None:
    from clipo_train.config import load_config

    target = Path(arguments[0])
    is_run = target.is_dir()
    config = load_config(target / "config.yaml" if is_run else target, arguments[1:])
    if is_run and config.model.path == load_config(target / "config.yaml").model.path:
        model = dataclasses.replace(config.model, path=str(target / "final"), gguf_file=None)
        config = dataclasses.replace(config, model=model)
    from clipo_train.evaluation import evaluate

    _quiet()
    metrics = evaluate(config)
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")


def _quiet() -> None:
    """Leaves the terminal to our own progress bar, and to real warnings."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.utils.other").setLevel(
        logging.ERROR
    )  # tied weights are saved once: as they should be


def _report(arguments: Sequence[str]) -> None:
    from clipo_train.report import write_report

    sys.stdout.write(f"{write_report(Path(arguments[0]))}\n")


if __name__ == "__main__":
    sys.exit(main())
