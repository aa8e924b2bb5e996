r"""Who says what is right: verifiers by name, the slow or foreign ones in a process of their own.

| name | right is | runs |
|---|---|---|
| `arithmetic` | the test bed's checker; knows the process too | here |
| `exact_match` | the completion equals the answer, white space aside | here |
| `math` | math-verify finds both equal; the answer may be a solution with `\boxed{}` | worker |
| `reasoning_gym` | the task's own score is 1 | worker |
| `module:function` | yours: of (example, completion), gives a `Verdict`, a bool or a reward in [0, 1] | worker |
"""

import functools
import importlib
import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

from clipo_train.errors import ConfigError
from clipo_train.testbed import arithmetic
from clipo_train.types import Example, Verdict, Verifier

_WORKERS = 2


class VerifierError(ConfigError):
    """A verifier raised, hung, or gave something that is no verdict."""


def _exact_match(example: Example, completion: str) -> Verdict:
    success = completion.strip() == example.answer.strip()
    return Verdict(success, float(success))


def _math(example: Example, completion: str) -> Verdict:
    import math_verify

    truth = example.answer if "\\boxed" in example.answer else f"\\boxed{{{example.answer}}}"
    # math-verify bounds its own time by a signal, which works since a worker's task runs in its main thread; what it
    # cannot finish counts as wrong.
    success = bool(math_verify.verify(math_verify.parse(truth), math_verify.parse(completion)))
    return Verdict(success, float(success))


def _reasoning_gym(example: Example, completion: str) -> Verdict:
    entry = example.metadata["entry"]
    score = _scorer(example.metadata["task"], json.dumps(example.metadata["options"]))(_final_answer(completion), entry)
    return Verdict(score == 1.0, float(score))


@functools.cache
def _scorer(task: str, options: str) -> Callable[[str, Any], float]:
    import reasoning_gym

    score: Callable[[str, Any], float] = reasoning_gym.create_dataset(task, **json.loads(options)).score_answer
    return score


def _final_answer(completion: str) -> str:
    """What stands in the last <answer> tag; else the last number; else the last line."""
    tagged = re.findall(r"<answer>(.*?)</answer>", completion, flags=re.DOTALL)
    if tagged:
        return str(tagged[-1]).strip()
    numbers = re.findall(r"-?\d+(?:\.\d+)?", completion)
    return str(numbers[-1]) if numbers else (completion.strip().splitlines() or [""])[-1]


_HERE: dict[str, Verifier] = {"arithmetic": arithmetic.verify, "exact_match": _exact_match}
_IN_WORKER: dict[str, Verifier] = {"math": _math, "reasoning_gym": _reasoning_gym}


class VerifierPool:
    """A verifier at work; made by `load_verifier`, and a context manager that ends its processes.

    Args:
        name: For messages.
        verifier: Judges one completion.
        timeout: Seconds one completion may take; None runs it in this process, without a bound.
    """

    def __init__(self, name: str, verifier: Callable[[Example, str], Any], timeout: float | None) -> None:
        self.name = name
        self.verifier = verifier
        self.timeout = timeout
        self._pool: Any = None

    def verify(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Verdict]:
        """Judges completions.

        Args:
            examples: One per completion.
            completions: Responses as text.

        Raises:
            VerifierError: The verifier raised, took longer than the timeout, or returned no verdict.
        """
        pairs = list(zip(examples, completions, strict=True))
        if self.timeout is None:
            return [self._verdict(*pair, functools.partial(self.verifier, *pair)) for pair in pairs]
        futures = [self._workers().schedule(self.verifier, args=pair, timeout=self.timeout) for pair in pairs]
        try:
            return [self._verdict(*pair, future.result) for pair, future in zip(pairs, futures, strict=True)]
        except VerifierError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the worker processes, whatever they are doing."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _workers(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in whatever state
            self._pool = ProcessPool(_WORKERS, context=context, initializer=_find_local_modules)
        return self._pool

    def _verdict(self, example: Example, completion: str, result: Callable[[], Any]) -> Verdict:
        case = f"on {completion[:60]!r} of {example.source!r}"
        try:
            value = result()
        except FutureTimeoutError:
            raise VerifierError(
                f"data.verifier: wanted a verdict within {self.timeout} s (data.verifier_timeout), "
                f"got none from {self.name!r} {case}"
            ) from None
        except Exception as error:
            raise VerifierError(
                f"data.verifier: wanted a verdict, got {type(error).__name__}: {error} from {self.name!r} {case}"
            ) from error
        if isinstance(value, Verdict):
            return value
        if isinstance(value, bool | int | float) and 0 <= value <= 1:
            return Verdict(success=value == 1, reward=float(value))
        wanted = "a Verdict, a bool or a reward in [0, 1]"
        raise VerifierError(f"data.verifier: wanted {wanted}, got {value!r} from {self.name!r} {case}")


def load_verifier(name: str, *, timeout: float = 10.0) -> VerifierPool:
    """The verifier of that name; see the module.

    Args:
        name: A name of ours, or `module:function` for one of yours, found in the working directory or installed.
        timeout: Seconds one completion may take, for those that run in a worker.

    Raises:
        ConfigError: Unknown name; a module or function that cannot be imported.
    """
    if name in _HERE:
        return VerifierPool(name, _HERE[name], None)
    if name in _IN_WORKER:
        return VerifierPool(name, _IN_WORKER[name], timeout)
    module, colon, function = name.partition(":")
    if not colon:
        ours = ", ".join([*_HERE, *_IN_WORKER])
        raise ConfigError(f"data.verifier: wanted one of {ours}, or module:function, got {name!r}")
    _find_local_modules()
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"data.verifier: wanted module:function, got {name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"data.verifier: wanted a function, got {type(found).__name__} for {name!r}")
    return VerifierPool(name, found, timeout)


def _find_local_modules() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
