"""Verifiers of a user's, good and bad."""

import os
import time
from pathlib import Path

from clipo_train.types import Example, Verdict


def half(example: Example, completion: str) -> float:
    return 1.0 if completion == example.answer else 0.5


def verdict(example: Example, completion: str) -> Verdict:
    return Verdict(success=completion == example.answer, reward=3.0, process=True)


def raises(example: Example, completion: str) -> bool:
    raise RuntimeError("no such luck")


def hangs(example: Example, completion: str) -> bool:
    Path(example.metadata["pid_file"]).write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


def hangs_on_8(example: Example, completion: str) -> bool:
    return completion == example.answer or (completion == "8" and hangs(example, completion))


def hangs_once(example: Example, completion: str) -> bool:
    """Hangs in the first process that comes to create the file named by HUNG."""
    try:
        Path(os.environ["HUNG"]).touch(exist_ok=False)
    except FileExistsError:
        return completion == example.answer
    while True:
        time.sleep(0.1)


def dies_on_8(example: Example, completion: str) -> bool:
    if completion == "8":
        os._exit(1)
    return completion == example.answer


def not_a_verdict(example: Example, completion: str) -> str:
    return "yes"


NOT_A_FUNCTION = 3
