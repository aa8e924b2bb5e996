r"""Who says what is right: verifiers by name, the slow or foreign ones in a process of their own.

| name | right is | runs |
|---|---|---|
| `auto` | what the verifier of the row's source says; see `SOURCES` | worker |
| `arithmetic` | the test bed's checker; knows the process too | here |
| `exact_match` | the completion equals the answer, white space aside | here |
| `multiple_choice` | the letter in the last `\boxed{}`, or after `answer is`, is the answer's | here |
| `math` | math-verify finds both equal; the answer may be a solution with `\boxed{}` | worker |
| `reasoning_gym` | the task's own score is 1 | worker |
| `module:function` | yours: of (example, completion), gives a `Verdict`, a bool or a reward in [0, 1] | worker |

A completion that a worker has not judged in time, or that kills it, is wrong and gets a reward of 0: what a policy
writes must not end a run. The first such completion is told of in a warning, all are counted. A verifier that raises or
gives something else than a verdict does end the run, for that is a mistake in the verifier.
"""

import functools
import importlib
import logging
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clipo_train import judges
from clipo_train.errors import ConfigError
from clipo_train.testbed import arithmetic
from clipo_train.types import Example, Verdict, Verifier

SOURCES = {
    "arithmetic:": "arithmetic",
    "reasoning_gym:": "reasoning_gym",
    **dict.fromkeys(("aime", "amc", "gsm", "math", "minerva", "olympiad", "theoremqa"), "math"),
    **dict.fromkeys(
        ("arc", "commonsense_qa", "commonsenseqa", "gpqa", "mmlu", "truthful_qa", "truthfulqa"), "multiple_choice"
    ),
}
"""Which verifier `auto` takes: beginning of the source's name, without its owner and in small letters -> verifier. A
row whose metadata has a `verifier` is judged by that one."""

_LARGEST = 1e15
"""Largest absolute reward: its square, summed over a batch, is finite in float32."""

_log = logging.getLogger(__name__)


class VerifierError(ConfigError):
    """A verifier raised, or gave something that is no verdict."""


def judge(verifier: Callable[[Example, str], Any], example: Example, completion: str) -> Any:
    """What a verifier says of a completion: the first success, or else the highest reward, among the ground truths."""
    if not example.alternatives:
        return verifier(example, completion)
    best: Verdict | None = None
    for answer in (example.answer, *example.alternatives):
        verdict = as_verdict(verifier(replace(example, answer=answer), completion))
        if best is None or (verdict.success, verdict.reward) > (best.success, best.reward):
            best = verdict
        if verdict.success:
            break
    return best


def auto(example: Example, completion: str) -> Any:
    """The verdict of the verifier that `verifier_of` names."""
    return _find(verifier_of(example))(example, completion)


def verifier_of(example: Example) -> str:
    """Name of the verifier that `auto` takes for a row.

    Raises:
        ConfigError: The row does not name one, and its source is unknown.
    """
    named = example.metadata.get("verifier")
    if named is not None:
        return str(named)
    source = example.source.lower()
    source = source if ":" in source else source.rpartition("/")[2]
    for beginning, name in SOURCES.items():
        if source.startswith(beginning):
            return name
    known = ", ".join(beginning.rstrip(":") for beginning in SOURCES)
    raise ConfigError(
        f"data.verifier: expected a source that begins with one of {known}, or rows with a `verifier`, for auto, "
        f"got {example.source!r}"
    )


_HERE: dict[str, Verifier] = {
    "arithmetic": arithmetic.verify,
    "exact_match": judges.exact_match,
    "multiple_choice": judges.multiple_choice,
}
_IN_WORKER: dict[str, Verifier] = {"auto": auto, "math": judges.math, "reasoning_gym": judges.reasoning_gym}


def as_verdict(value: Any) -> Verdict:
    """What a verifier returned, checked: a `Verdict`, a bool, or a reward in [0, 1].

    Raises:
        ValueError: It is something else; says what was expected and got.
    """
    if not isinstance(value, Verdict):
        if not _is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"expected a Verdict, a bool or a reward in [0, 1], got {_shown(value)}")
        return Verdict(success=bool(value == 1), reward=float(value))
    for name, wanted, fits in (
        ("success", "a bool", isinstance(value.success, bool | np.bool_)),
        (
            "reward",
            f"a finite number, at most {_LARGEST:g}",
            _is_number(value.reward) and abs(value.reward) <= _LARGEST,
        ),
        ("process", "a bool or None", isinstance(value.process, bool | np.bool_ | None)),
        ("answer", "text or None", isinstance(value.answer, str | None)),
        ("timed_out", "a bool", isinstance(value.timed_out, bool | np.bool_)),
    ):
        if not fits:
            raise ValueError(f"expected Verdict.{name} to be {wanted}, got {_shown(getattr(value, name))}")
    process = None if value.process is None else bool(value.process)
    return Verdict(bool(value.success), float(value.reward), process, value.answer, bool(value.timed_out))


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.number) and not isinstance(value, complex)


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


class VerifierPool:
    """A verifier at work; made by `load_verifier`, and a context manager that ends its processes.

    Args:
        name: For messages.
        verifier: Judges one completion.
        timeout: Seconds one completion may take; None runs it in this process, without a bound.
        workers: Processes.
    """

    def __init__(
        self, name: str, verifier: Callable[[Example, str], Any], timeout: float | None, *, workers: int = 2
    ) -> None:
        self.name = name
        self.verifier = verifier
        self.timeout = timeout
        self.workers = workers
        self._pool: Any = None
        self._prepared: set[str] = set()
        self._warned = False

    def verify(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Verdict]:
        """Judges completions.

        Args:
            examples: One per completion.
            completions: Responses as text.

        Raises:
            VerifierError: The verifier raised, or returned no verdict.
            ConfigError: `auto` does not know an example's source.
        """
        pairs = list(zip(examples, completions, strict=True))
        if self.timeout is None:
            return [self._verdict(*pair, functools.partial(judge, self.verifier, *pair)) for pair in pairs]
        pool = self._processes({verifier_of(item) for item in examples} if self.name == "auto" else {self.name})
        futures = [pool.schedule(judge, args=(self.verifier, *pair), timeout=self.timeout) for pair in pairs]
        try:
            return [self._verdict(*pair, future.result) for pair, future in zip(pairs, futures, strict=True)]
        except VerifierError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the worker processes, whatever they are doing; the next call of `verify` starts new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _processes(self, names: set[str]) -> Any:
        """The worker processes, prepared for verifiers of these names."""
        if not names <= self._prepared:
            self.close()
            self._prepared = self._prepared | names
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in whatever state
            self._pool = ProcessPool(self.workers, context=context, initializer=_prepare, initargs=(self._prepared,))
        return self._pool

    def _verdict(self, example: Example, completion: str, result: Callable[[], Any]) -> Verdict:
        from pebble import ProcessExpired

        case = f"on {completion[:60]!r} of {example.source!r}"
        try:
            value = result()
        except (FutureTimeoutError, ProcessExpired) as error:
            self._warn("none" if isinstance(error, FutureTimeoutError) else "the worker's death", case)
            return Verdict(False, 0.0, timed_out=True)
        except ConfigError as error:  # from `auto`
            raise VerifierError(str(error)) from None
        except Exception as error:
            raise VerifierError(
                f"data.verifier: expected a verdict, got {type(error).__name__}: {error} from {self.name!r} {case}"
            ) from error
        try:
            return as_verdict(value)
        except ValueError as error:
            raise VerifierError(f"data.verifier: {error} from {self.name!r} {case}") from None

    def _warn(self, got: str, case: str) -> None:
        """Tells of the first time; the metric `verifier_timeouts` counts the others."""
        if not self._warned:
            _log.warning(
                "data.verifier: expected a verdict within %s s (data.verifier_timeout), got %s from %r "
                "%s: it counts as "
                "wrong, and so will others (see verifier_timeouts)",
                *(self.timeout, got, self.name, case),
            )
            self._warned = True


def load_verifier(name: str, *, timeout: float = 10.0, workers: int = 2) -> VerifierPool:
    """The verifier of that name; see the module.

    Args:
        name: A name of ours, or `module:function` for one of yours, found in the working directory or installed.
        timeout: Seconds one completion may take, for those that run in a worker.
        workers: Processes, for those.

    Raises:
        ConfigError: Unknown name; a module or function that cannot be imported.
    """
    return VerifierPool(name, _find(name), None if name in _HERE else timeout, workers=workers)


def is_ours(name: str) -> bool:
    """Whether a verifier comes with the trainer, rather than from a user."""
    return name in _HERE or name in _IN_WORKER


def _find(name: str) -> Callable[[Example, str], Any]:
    ours = _HERE | _IN_WORKER
    if name in ours:
        return ours[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(f"data.verifier: expected one of {', '.join(ours)}, or module:function, got {name!r}")
    _find_local_modules()
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"data.verifier: expected module:function, got {name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"data.verifier: expected a function, got {type(found).__name__} for {name!r}")
    return found  # type: ignore[no-any-return]


def _prepare(names: set[str]) -> None:
    """Imports what a worker needs before its first completion, whose time would pay for it otherwise."""
    _find_local_modules()
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own limit of time is off
    for name, module in {"math": "math_verify", "reasoning_gym": "reasoning_gym"}.items():
        if name in names:
            importlib.import_module(module)


def _find_local_modules() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
