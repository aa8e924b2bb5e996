"""Verifiers of a user's, good and bad."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def signalled(example: Example, completion: str) -> Verdict:
    """Gets the signals that a terminal or a scheduler sends to all processes; a process of its own would heed them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    script = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    return Verdict(True, 1.0, answer=f"{ended.returncode} {os.getpid()}")


def exits(example: Example, completion: str) -> bool:
    sys.exit(0)


def eats_on_8(example: Example, completion: str) -> bool:
    return completion == example.answer or len([bytearray(2**28) for _ in range(64)]) < 0


def environment(example: Example, completion: str) -> Verdict:
    return Verdict(True, 1.0, answer=" ".join(os.environ))


def a_function(example: Example, completion: str) -> Any:
    return lambda: 1


def not_a_number(example: Example, completion: str) -> float:
    return float("nan")


def a_number_for_success(example: Example, completion: str) -> Any:
    return Verdict(1, 1.0)  # type: ignore[arg-type]


def no_reward(example: Example, completion: str) -> Any:
    return Verdict(False, None)  # type: ignore[arg-type]


def infinite(example: Example, completion: str) -> Any:
    return Verdict(True, float("inf"))


def text_for_process(example: Example, completion: str) -> Any:
    return Verdict(True, 1.0, process="yes")  # type: ignore[arg-type]


def an_answer_that_is_no_text(example: Example, completion: str) -> Any:
    return Verdict(True, 1.0, answer=7)  # type: ignore[arg-type]


def not_a_verdict(example: Example, completion: str) -> str:
    return "yes"


NOT_A_FUNCTION = 3
