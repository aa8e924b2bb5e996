"""What runs in a verifier's worker process: bounded, without the trainer's secrets, and never longer than the trainer.

A worker is told the verifier's name, an example and a completion, and answers with a `Verdict` or a `Failure`; nothing
else of a verifier's makes its way back.
"""

import ctypes
import functools
import importlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipo_train import judges
from clipo_train.errors import ConfigError, reason
from clipo_train.testbed import arithmetic
from clipo_train.types import Example, Verdict, Verifier

HERE: dict[str, Verifier] = {"arithmetic": arithmetic.verify, "exact_match": judges.exact_match}
"""Verifiers that compare text and so need no worker."""
IN_WORKER: dict[str, Verifier] = {
    "multiple_choice": judges.multiple_choice,
    "math": judges.math,
    "reasoning_gym": judges.reasoning_gym,
}
OURS = HERE | IN_WORKER

_KEPT = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
_KEPT_PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "HF_HUB_OFFLINE", "TOKENIZERS_", "JAXTYPING_")
_PR_SET_PDEATHSIG = 1
_IMPORTS = {"math": "math_verify", "reasoning_gym": "reasoning_gym"}
_LARGEST = 1e15
"""Largest absolute reward: its square, summed over a batch, is finite in float32."""


class Failure(NamedTuple):
    """Why there is no verdict.

    Attributes:
        reason: One line.
        counts_as_incorrect: The completion is to blame, and costs its reward; otherwise the verifier is.
    """

    reason: str
    counts_as_incorrect: bool


class NotAVerdictError(TypeError):
    """A verifier returned something else; says what was expected and what it was."""


def judge(name: str, example: Example, completion: str) -> Verdict | Failure:
    """The verdict of the verifier of that name. Whatever goes wrong becomes a `Failure`.

    A completion that one of our own verifiers fails on counts as incorrect: what a policy writes must not end a run.
    """
    try:
        return _best(find(name), example, completion)
    except MemoryError:
        return Failure("no verdict within data.verifier_memory", counts_as_incorrect=True)
    except NotAVerdictError as error:
        return Failure(str(error), counts_as_incorrect=False)
    except BaseException as error:  # a verifier may call sys.exit
        return Failure(f"expected a verdict, got {reason(error, typed=True)}", counts_as_incorrect=name in OURS)


def _best(verifier: Verifier, example: Example, completion: str) -> Verdict:
    """The verdict under the first ground truth that accepts a completion, or else the one with the highest reward."""
    best: Verdict | None = None
    for answer in (example.answer, *example.alternatives):
        verdict = as_verdict(verifier(replace(example, answer=answer), completion))
        if best is None or (verdict.success, verdict.reward) > (best.success, best.reward):
            best = verdict
        if verdict.success:
            return verdict
    assert best is not None  # noqa: S101 - there is one ground truth at least
    return best


def as_verdict(value: Any) -> Verdict:
    """What a verifier returned, checked: a `Verdict`, a bool, or a reward in [0, 1].

    Raises:
        NotAVerdictError: It is something else.
    """
    if not isinstance(value, Verdict):
        if not _is_number(value) or not 0 <= value <= 1:
            raise NotAVerdictError(f"expected a Verdict, a bool or a reward in [0, 1], got {_one_line(repr(value))}")
        return Verdict(success=bool(value == 1), reward=float(value))
    flag = (bool, np.bool_)
    for name, expected, fits in (
        ("success", "a bool", isinstance(value.success, flag)),
        ("reward", f"a number of at most {_LARGEST:g}", _is_number(value.reward) and abs(value.reward) <= _LARGEST),
        ("process", "a bool or None", value.process is None or isinstance(value.process, flag)),
        ("answer", "text or None", isinstance(value.answer, str | None)),
        ("timed_out", "a bool", isinstance(value.timed_out, flag)),
    ):
        if not fits:
            got = _one_line(repr(getattr(value, name)))
            raise NotAVerdictError(f"expected Verdict.{name} to be {expected}, got {got}")
    process = None if value.process is None else bool(value.process)
    answer = None if value.answer is None else str.__str__(value.answer)  # a subclass may not survive the way back
    return Verdict(bool(value.success), float(value.reward), process, answer, bool(value.timed_out))


def find(name: str) -> Verifier:
    """The verifier of that name.

    Raises:
        ConfigError: There is none.
    """
    if name in OURS:
        return OURS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(f"data.verifier: expected one of auto, {', '.join(OURS)}, or module:function, got {name!r}")
    _find_local_modules()
    try:
        found = functools.reduce(getattr, function.split("."), importlib.import_module(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module of a user's raises when it is imported; it may call sys.exit
        raise ConfigError(f"data.verifier: expected module:function, got {name!r}: {reason(error)}") from error
    if not callable(found):
        raise ConfigError(f"data.verifier: expected a function, got {type(found).__name__} for {name!r}")
    return found


def prepare(names: Iterable[str], memory: float, passed: Iterable[str], trainer: int) -> None:
    """Makes a new process a worker.

    Args:
        names: Verifiers to import, before the first completion whose time would pay for it.
        memory: GiB that the process may use.
        passed: Names of environment variables to keep, besides harmless ones.
        trainer: Process id of the trainer, with which the worker ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the trainer's to handle
    _end_with(trainer)
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    os.environ.clear()
    os.environ.update(kept)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own limit of time is off
    for name in names:
        with suppress(Exception):  # the first completion tells
            importlib.import_module(_IMPORTS[name]) if name in _IMPORTS else find(name)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(min(memory * 2**30, sys.maxsize))
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))


def _end_with(trainer: int) -> None:
    """Has this process killed when the trainer ends, even in the middle of a computation."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != trainer:  # it has ended already
        os._exit(1)


def _find_local_modules() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
