"""The `clipo` command: train, eval, report, study, export, verify-data."""

import argparse
import dataclasses
import io
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from clipo_train.errors import ConfigError, parser_error, printable, shortened
from clipo_train.stopping import Stopped

_USAGE = """\
usage: clipo train CONFIG.yaml [--preset NAME] [--field value ...]
                                                      train; `clipo train CONFIG.yaml --help` lists presets and fields
       clipo eval RUN|CONFIG.yaml [--suite track1|track2 --data FOLDER] [--field value ...]
                                                      evaluate a run's final policy, or the model of a configuration, on
                                                      its evaluation sets or one of the paper's suites
       clipo report RUN                               write RUN/report.html anew
       clipo report RUN RUN ... [--output FILE.html]  compare runs on one page, comparison.html when not given
       clipo study STUDY.yaml [--output FOLDER] [--seeds N] [--workers N]
                                                      run what is missing of arms x seeds, and write FOLDER/study.html
       clipo export RUN OUT [--step N]                write the policy of a checkpoint, the latest if no step is given,
                                                      as a Hugging Face folder
       clipo verify-data SOURCE ... [--verifier NAME] [--timeout SECONDS] [--limit ROWS]
                         [--prompt COLUMN] [--answer COLUMN] [--name CONFIGURATION]
                                                      check that a verifier accepts the answers of data sets, and no
                                                      others; `auto` and 30 s when not given"""


_BAD_INPUT = 2
_LONGEST = 300
"""Characters of a message about bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0, or 2 after a one-line error about something the user can mend, or 128 and the number of the
        signal that stopped it: 130 for ctrl-C, 143 for SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # show what the terminal's encoding lacks as escapes
            stream.reconfigure(errors="backslashreplace")
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("", "-h", "--help") or rest[:1] in (["-h"], ["--help"]):
        (sys.stdout if name else sys.stderr).write(_USAGE + "\n")
        return 0 if name else 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        _run(name, rest)
        sys.stdout.flush()
    except ConfigError as error:
        return _end(name, str(error))
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        return _end(name, _os_error(error))
    except MemoryError as error:
        return _end(name, f"memory: expected enough of it, got too little: {error}".removesuffix(": "))
    except KeyboardInterrupt as stop:
        how = f"; to go on: {_resume_command(rest)}" if name == "train" and isinstance(stop, Stopped) else ""
        return _end(name, f"{str(stop) or 'stopped'}{how}", 128 + getattr(stop, "number", signal.SIGINT))
    return 0


def _end(name: str, message: str, status: int = _BAD_INPUT) -> int:
    """Prints one line."""
    message = printable(message)
    message = shortened(message, _LONGEST) if status == _BAD_INPUT else message  # how to go on is to be copied whole
    sys.stderr.write(f"clipo {shortened(printable(name))}: {message}\n")
    return status


def _os_error(error: OSError) -> str:
    """What the operating system refused, and where."""
    if error.errno is None or error.strerror is None:  # a library's own, such as a model that the hub lacks
        return f"files: expected to be read and written, got {type(error).__name__}: {' '.join(str(error).split())}"
    where = shortened(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "files"
    return f"{where}: expected to be read and written, got {error.strerror}"


def _resume_command(arguments: Sequence[str]) -> str:
    """The same command, with its run's folder, and `--resume`."""
    from clipo_train.config.files import load_config

    command = [argument for argument in arguments if argument not in ("--resume", "--no-resume")]
    if not any(argument.partition("=")[0] == "--run_dir" for argument in command):
        command += ["--run_dir", str(load_config(Path(arguments[0]), arguments[1:]).run_dir)]
    return shlex.join(["clipo", "train", *command, "--resume"])


def _run(name: str, arguments: Sequence[str]) -> None:
    commands = {
        "train": (_train, "config: expected CONFIG.yaml"),
        "eval": (_eval, "run: expected RUN or CONFIG.yaml"),
        "report": (_report, "run: expected RUN"),
        "study": (_study, "study: expected STUDY.yaml"),
        "export": (_export, "run: expected RUN"),
        "verify-data": (_verify_data, "data: expected SOURCE"),
    }
    if name not in commands:
        raise ConfigError(f"command: expected one of {', '.join(commands)}, got {name!r}; see clipo --help")
    command, wanted = commands[name]
    if not arguments or arguments[0].startswith("-"):
        got = repr(arguments[0]) if arguments else "nothing"
        raise ConfigError(f"{wanted} after {name}, got {got}; see clipo --help")
    command(arguments)


def _train(arguments: Sequence[str]) -> None:
    from clipo_train.config.files import load_config
    from clipo_train.report import completions_table, load_metrics, notices, summary_table
    from clipo_train.terminal import plain

    config = load_config(Path(arguments[0]), arguments[1:])
    from clipo_train.trainer import Trainer

    _quiet()
    trainer = Trainer(config)
    report = trainer.train()
    if not trainer.accelerator.is_main_process:
        return
    console = Console()
    console.print(completions_table(config.run_dir))
    metrics = load_metrics(config.run_dir)
    console.print(summary_table(metrics))
    for notice in notices(metrics):
        console.print(plain(notice))
    console.print(plain(f"Report: {report}"), soft_wrap=True)


def _eval(arguments: Sequence[str]) -> None:
    from clipo_train.config.files import load_config
    from clipo_train.suites import suite

    target = Path(arguments[0])
    is_run = target.is_dir()
    if is_run and not (target / "final").is_dir():
        raise ConfigError(f"run: expected the folder of a finished run, got {str(target)!r}, which has no final policy")
    given, rest = _options(arguments[1:], suite=str, data=Path)
    if (given.suite is None) != (given.data is None):
        raise ConfigError("suite: expected --suite and --data FOLDER, or neither, got one of them")
    fields = suite(given.suite, given.data) if given.suite else None
    config = load_config(target / "config.yaml" if is_run else target, rest, suite=fields)
    if is_run and config.model.path == load_config(target / "config.yaml").model.path:
        model = dataclasses.replace(config.model, path=str(target / "final"), gguf_file=None)
        config = dataclasses.replace(config, model=model)
    from accelerate import PartialState

    from clipo_train.evaluation import evaluate, results_table

    _quiet()
    metrics = evaluate(config)
    if not PartialState().is_main_process:
        return
    Console(stderr=True).print(results_table(metrics))
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")


def _quiet() -> None:
    """Leaves the terminal to our own progress bar, and to real warnings."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in (
        "accelerate.utils.other",  # tied weights are saved once: as they should be
        "transformers.modeling_utils",  # weights that a model lacks are an error of ours
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


def _report(arguments: Sequence[str]) -> None:
    from clipo_train.report import write_comparison, write_report

    given, rest = _options(arguments, output=Path)
    _no_more([argument for argument in rest if argument.startswith("-")])
    runs = [Path(argument) for argument in rest]
    if len(runs) == 1:
        path = write_report(runs[0], given.output)
    else:
        path = write_comparison(runs, given.output or Path("comparison.html"))
    sys.stdout.write(f"{path}\n")


def _study(arguments: Sequence[str]) -> None:
    given, rest = _options(arguments[1:], output=str, seeds=int, workers=int)
    _no_more(rest)
    from clipo_train.study.config import load_study

    study = load_study(Path(arguments[0]), vars(given))
    from clipo_train.study.analysis import analyse
    from clipo_train.study.page import study_table, write_study
    from clipo_train.study.runner import run_study

    _quiet()
    results = run_study(study)
    analysis = analyse(study, results)
    Console().print(study_table(study, analysis))
    sys.stdout.write(f"{write_study(study, results, analysis)}\n")


def _export(arguments: Sequence[str]) -> None:
    given, rest = _options(arguments[1:], step=int)
    if not rest:
        raise ConfigError("out: expected a new folder after RUN, got nothing")
    _no_more(rest[1:])
    from clipo_train.checkpoint import export_checkpoint

    _quiet()
    export_checkpoint(Path(arguments[0]), Path(rest[0]), given.step)
    sys.stdout.write(f"{rest[0]}\n")


def _verify_data(arguments: Sequence[str]) -> None:
    from clipo_train import jsonl
    from clipo_train.data import load_examples
    from clipo_train.types import Column
    from clipo_train.verifiers import load_verifier
    from clipo_train.verify_data import check_data, checks_table

    given, sources = _options(arguments, verifier=str, timeout=float, limit=int, name=str, prompt=str, answer=str)
    _no_more([source for source in sources if source.startswith("-")])
    if given.timeout is not None and not given.timeout > 0:
        raise ConfigError(f"--timeout: expected more than 0 seconds, got {given.timeout:g}")
    if given.limit is not None and given.limit < 1:
        raise ConfigError(f"--limit: expected at least 1 row, got {given.limit}")
    columns: dict[Column, str] = {"prompt": given.prompt, "answer": given.answer}
    columns = {ours: theirs for ours, theirs in columns.items() if theirs}
    options = {"name": given.name} if given.name else {}
    checks = []
    with load_verifier(given.verifier or "auto", timeout=given.timeout or 30.0) as pool:
        for source in sources:
            examples = load_examples(source, limit=given.limit, options=options, columns=columns)
            checks.append(check_data(source, examples, pool))
            for name, rows in checks[-1].exceptions.items():
                for row, example, completion in rows:
                    line = {
                        "data": source,
                        "row": row,
                        "wrong on": name,
                        "answer": example.answer,
                        "completion": completion,
                    }
                    sys.stdout.write(jsonl.dumps(line))
    Console(stderr=True).print(checks_table(checks))


def _options(arguments: Sequence[str], **types: Callable[[str], Any]) -> tuple[argparse.Namespace, list[str]]:
    """The options of these names and types, None where not given, and the other arguments."""
    from clipo_train.config.command_line import with_negative_numbers

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, kind in types.items():
        parser.add_argument(f"--{name}", type=kind)
    try:
        return parser.parse_known_args(with_negative_numbers(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(parser_error(str(error))) from None


def _no_more(arguments: Sequence[str]) -> None:
    if arguments:
        raise ConfigError(f"{arguments[0]}: expected nothing more, got this; see clipo --help")


if __name__ == "__main__":
    sys.exit(main())
