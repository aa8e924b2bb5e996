r"""Who says what is right: verifiers by name, the slow or foreign ones in a process of their own.

| name | a completion is correct if | runs in |
|---|---|---|
| `auto` | the verifier of the row's source says so; see `SOURCES` | a worker |
| `arithmetic` | the test bed's checker says so; it checks the process too | the trainer |
| `exact_match` | it equals the answer, white space around it aside | the trainer |
| `multiple_choice` | it chooses the answer's letter | a worker |
| `math` | math-verify finds its final answer equal to the ground truth | a worker |
| `reasoning_gym` | the task's own score is 1 | a worker |
| `module:function` | your function of (example, completion) returns a `Verdict`, True or 1 for it | a worker |

A worker is a process with bounds on time and memory, without the trainer's environment secrets; it ends with the
trainer. A completion that it does not judge within these bounds counts as incorrect, since what a policy writes must
not end a run. The first is logged, all are counted. A function of yours that raises, or returns something else than a
verdict, ends the run: the mistake is in the verifier.
"""

import functools
import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from clipo_train.errors import ConfigError, shortened
from clipo_train.types import Example, Verdict
from clipo_train.verifier_worker import HERE, OURS, Failure, find, judge, prepare

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

_log = logging.getLogger(__name__)


class VerifierError(ConfigError):
    """A verifier raised, or gave something that is no verdict."""


def verifier_of(example: Example) -> str:
    """Name of the verifier that `auto` takes for a row.

    Raises:
        ConfigError: The row does not name one, and its source is unknown.
    """
    named = example.metadata.get("verifier")
    if named is not None:
        if not isinstance(named, str) or named not in OURS:
            raise ConfigError(
                f"data: expected a row's verifier to be one of {', '.join(OURS)}, got {str(named)[:60]!r}; a "
                "function of yours is named by data.verifier, not by a row"
            )
        return named
    source = example.source.lower()
    source = source if ":" in source else source.rpartition("/")[2]
    for beginning, name in SOURCES.items():
        if source.startswith(beginning):
            return name
    known = ", ".join(beginning.rstrip(":") for beginning in SOURCES)
    raise ConfigError(
        f"data.verifier: expected a source that begins with one of {known}, or rows with a `verifier`, for auto, "
        f"got {shortened(repr(example.source), 60)}"
    )


class VerifierPool:
    """A verifier at work: a context manager that ends its processes.

    Args:
        name: The verifier's.
        timeout: Seconds that one completion may take.
        workers: Processes.
        memory: GiB of memory that each of them may use.
        env: Names of environment variables that they get.
    """

    def __init__(
        self, name: str, *, timeout: float = 10.0, workers: int = 2, memory: float = 4.0, env: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.workers = workers
        self.memory = memory
        self.env = tuple(env)
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
        names = [self.name_for(example) for example in examples]
        calls = list(zip(names, examples, completions, strict=True))
        if not set(names) <= HERE.keys():
            pool = self._processes({name for name in names if name not in HERE})
        results: list[Callable[[], Verdict | Failure]] = [
            functools.partial(judge, *call)
            if call[0] in HERE
            else pool.schedule(judge, args=call, timeout=self.timeout).result
            for call in calls
        ]
        try:
            return [self._verdict(*call, result) for call, result in zip(calls, results, strict=True)]
        except BaseException:
            self.close()
            raise

    def name_for(self, example: Example) -> str:
        """Name of the verifier that judges an example."""
        return verifier_of(example) if self.name == "auto" else self.name

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

            self._pool = ProcessPool(
                self.workers,
                context=multiprocessing.get_context("spawn"),  # a fork would copy torch's threads in whatever state
                initializer=prepare,
                initargs=(self._prepared, self.memory, self.env, os.getpid()),
            )
        return self._pool

    def _verdict(
        self, name: str, example: Example, completion: str, result: Callable[[], Verdict | Failure]
    ) -> Verdict:
        from pebble import ProcessExpired

        case = f"from {name!r} on {completion[:60]!r} of {example.source!r}"
        try:
            value = result()
        except FutureTimeoutError:
            return self._late(f"none {case}")
        except ProcessExpired:
            return self._late(f"the worker's death {case}")
        if isinstance(value, Verdict):
            return value
        if not value.counts_as_incorrect:
            raise VerifierError(f"data.verifier: {value.reason} {case}")
        return self._late(f"{value.reason} {case}") if name not in OURS else Verdict(False, 0.0)

    def _late(self, got: str) -> Verdict:
        """The verdict on a completion that could not be judged; the first is told, `verifier_timeouts` counts all."""
        if not self._warned:
            _log.warning(
                "data.verifier: expected a verdict within %s s (data.verifier_timeout), got %s: it counts as "
                "incorrect, and so will others (see verifier_timeouts)",
                *(self.timeout, got),
            )
            self._warned = True
        return Verdict(False, 0.0, timed_out=True)


def load_verifier(
    name: str, *, timeout: float = 10.0, workers: int = 2, memory: float = 4.0, env: Sequence[str] = ()
) -> VerifierPool:
    """The verifier of that name; see the module.

    Args:
        name: A name of ours, or `module:function` for one of yours, found in the working directory or installed.
        timeout: Seconds that one completion may take.
        workers: Processes that judge.
        memory: GiB of memory that each of them may use.
        env: Names of environment variables that they get, besides `PATH` and other harmless ones.

    Raises:
        ConfigError: Unknown name; a module or function that cannot be imported.
    """
    if name != "auto":
        find(name)
    return VerifierPool(name, timeout=timeout, workers=workers, memory=memory, env=env)
