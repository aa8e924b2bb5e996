"""Runs what a study has not run yet, on all cores, and keeps every result as one line of JSON."""

import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from rich.progress import Progress

from clipo_train import jsonl
from clipo_train.errors import ConfigError
from clipo_train.folders import check_can_create
from clipo_train.metrics import progress_bar
from clipo_train.report import load_metrics
from clipo_train.report.runs import Metrics, read_lines
from clipo_train.stopping import blocked_signals
from clipo_train.study.config import START, Run, StudyConfig, model_path, plan_run, start_run
from clipo_train.study.folders import check_folders, clear_folder
from clipo_train.testbed.warm_start import is_test_bed
from clipo_train.whole_file import disk_errors, write_whole

RESULTS, MACHINE = "results.jsonl", "machine.json"


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        arm: Its name, or `START`.
        seed: Its seed.
        settings: See `Run.settings`.
        seconds: CPU time.
        measures: Those of the study that the run has.
    """

    arm: str
    seed: int
    settings: str
    seconds: float
    measures: dict[str, float]


_RESULT = TypeAdapter(Result)


def run_study(study: StudyConfig, *, show_progress: bool = True) -> list[Result]:
    """Runs all arms with all seeds, seed by seed, but for those that the study's folder has results of.

    Returns:
        All results, old and new.

    Raises:
        ConfigError: The folder holds results of other settings, or cannot be written.
    """
    check_can_create(study.output, "output")
    done = read_results(study.output)
    _check_settings(study, done)
    have = {(result.arm, result.seed) for result in done}
    runs = [plan_run(study, arm, seed) for seed in range(study.seeds) for arm in study.arms]
    missing = [run for run in runs if (run.arm, run.seed) not in have]
    starts = [start_run(study, seed) for seed in range(study.seeds)]
    wanted = {run.seed for run in missing}
    unmade = [
        run for run in starts if (START, run.seed) not in have or (run.seed in wanted and not _has_first_policy(run))
    ]
    check_folders([*missing, *unmade])
    _check_measured(study, done)
    if missing or unmade:
        study.output.mkdir(parents=True, exist_ok=True)
        write_whole(study.output / MACHINE, json.dumps(machine(), indent=1) + "\n")
        lines = [jsonl.dumps(asdict(result)) for result in done]  # without a line that was cut short
        write_whole(study.output / RESULTS, "".join(lines))
    with progress_bar(visible=show_progress) as progress:
        for name, planned, left in (("first policies", starts, unmade), ("runs", runs, missing)):
            bar = progress.add_task(name, total=len(planned), completed=len(planned) - len(left), note="")
            _run_all(left, study, have, (progress, bar))
    results = [result for result in read_results(study.output) if result.seed < study.seeds]
    _check_measured(study, results)
    return results


def _run_all(runs: Sequence[Run], study: StudyConfig, have: set[tuple[str, int]], shown: tuple[Progress, Any]) -> None:
    if not runs:
        return
    from pebble import ProcessPool

    progress, bar = shown
    done = read_results(study.output)
    pool: Any = ProcessPool(study.workers, context=multiprocessing.get_context("spawn"), initializer=_prepare)
    try:
        with blocked_signals(signal.SIGINT):  # which the study alone handles
            futures: dict[Any, Run] = {pool.schedule(run_one, args=[run, study.measures]): run for run in runs}
        for future in as_completed(futures):
            run = futures[future]
            try:
                result = future.result()
            except Exception as error:
                error.add_note(f"in arm {run.arm}, seed {run.seed}")
                raise
            if (run.arm, run.seed) not in have:
                jsonl.append(study.output / RESULTS, [asdict(result)])
                done.append(result)
                _check_measured(study, done)
            progress.update(bar, advance=1, note=f"{run.arm}, seed {run.seed}: {result.seconds:.0f} CPU s")
        pool.close()
    finally:
        pool.stop()
        pool.join()


def run_one(run: Run, measures: Sequence[str]) -> Result:
    """Trains an arm with a seed, or makes and evaluates a seed's first policy."""
    from clipo_train.evaluation import evaluate
    from clipo_train.study.trainer import StudyTrainer

    start = time.process_time()
    clear_folder(run)
    if run.arm == START:
        _save_first_policy(run)
        model = replace(run.config.model, path=model_path(run))
        metrics = [{"step": 0.0, **evaluate(replace(run.config, model=model))}]
    else:
        StudyTrainer(run.config, run.reward).train()
        metrics = load_metrics(run.folder)
    found = {name: value for name in measures if (value := measure(metrics, name)) is not None}
    return Result(run.arm, run.seed, run.settings, round(time.process_time() - start, 1), found)


def measure(metrics: Metrics, name: str) -> float | None:
    """A number of a run, to 6 digits: of an evaluation the last, of training the mean of the steps that have it."""
    values = [row[name] for row in metrics if name in row]
    if not values:
        return None
    return float(f"{values[-1] if name.startswith('eval/') else sum(values) / len(values):.6g}")


def read_results(output: Path) -> list[Result]:
    """The results in a folder; a line cut short by a kill is left out.

    Raises:
        ConfigError: A line is no result.
    """
    try:
        return [_RESULT.validate_python(row) for row in read_lines(output / RESULTS)]
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(f"output: expected results of a study in {str(output / RESULTS)!r}, got no {where}") from None


def machine() -> dict[str, str | int]:
    """Where the study runs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines: Iterable[str] = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def _has_first_policy(run: Run) -> bool:
    return not is_test_bed(run.config.model.path) or Path(model_path(run), "tokenizer.json").is_file()


def _save_first_policy(run: Run) -> None:
    if is_test_bed(run.config.model.path):
        from clipo_train.policy import load_policy

        model, tokenizer = load_policy(run.config.model, seed=run.seed)
        folder = Path(model_path(run))
        with disk_errors(folder):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _check_settings(study: StudyConfig, results: Sequence[Result]) -> None:
    for result in results:
        if result.arm == START:
            run = start_run(study, result.seed)
        elif result.arm in study.arms:
            run = plan_run(study, result.arm, result.seed)
        else:
            continue
        if run.settings != result.settings:
            raise ConfigError(
                f"output: expected a folder for results of these settings of {result.arm!r}, got "
                f"{str(study.output)!r}, which has others of them"
            )


def _check_measured(study: StudyConfig, results: Sequence[Result]) -> None:
    """Stops a study, after the first seed that all arms have run with, for a measure that none of them has."""
    for seed in range(study.seeds):
        found = [result for result in results if result.seed == seed and result.arm in study.arms]
        if len({result.arm for result in found}) == len(study.arms):
            measured = {name for result in found for name in result.measures}
            for name in study.primary:
                if name not in measured:
                    raise ConfigError(f"primary: expected measures that an arm has, got {name!r}, which none has")
            return


def _prepare() -> None:
    """A worker has one thread and ends with its study."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
