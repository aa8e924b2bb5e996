"""Ctrl-C and SIGTERM: a run ends after the step it is in, and at once when asked a second time.

Before and after training, and in other commands, both end what is done at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from clipo_train.errors import reason

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PASSED_ON = 1.0
"""Seconds in which a signal may come again that was sent once, as from `torchrun` or `timeout`."""


class Stopped(KeyboardInterrupt):
    """A run ended because it was asked to; says what is saved of it.

    Args:
        message: What is saved, in one line.
        number: The signal's.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """The signal that asked the run to stop; 0 while none has."""

    number = 0
    time = 0.0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handles a signal.

        Raises:
            Stopped: It is a second one, and not the first as a launcher passes it on: ctrl-C reaches both.
        """
        if not self.number:
            self.number, self.time = number, time.monotonic()
        elif time.monotonic() - self.time > _PASSED_ON:
            raise Stopped("stopped at once, nothing of the current step is saved", number)


@contextmanager
def noted_signals() -> Iterator[StopRequest]:
    """Notes ctrl-C and SIGTERM for the block, where this is the main thread and they are not ignored.

    Raises:
        Stopped: The block failed after it was asked to stop.
    """
    request = StopRequest()
    try:
        with _handled_by(request.note):
            yield request
    except Exception as error:  # such as of an engine whose processes had the signal too
        if not request.number:
            raise
        told = f"stopped at once, nothing of the current step is saved ({reason(error, typed=True)})"
        raise Stopped(told, request.number) from error


def raised_signals() -> AbstractContextManager[None]:
    """Ctrl-C or SIGTERM raises `Stopped` in the block, where this is the main thread and they are not ignored.

    What comes after it, while the block is left, is ignored for a second and then ends the process without a word.
    """
    return _handled_by(_raise)


def leave_quietly() -> None:
    """From now on ctrl-C and SIGTERM may be the first one passed on, or, later, end the process without a word."""
    since = time.monotonic()

    def leave(number: int, _frame: FrameType | None) -> None:
        if time.monotonic() - since > _PASSED_ON:
            os._exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, leave)


@contextmanager
def blocked_signals(*numbers: int) -> Iterator[None]:
    """Threads and processes that start in the block never see these signals, or not before they unblock them."""
    resource_tracker.ensure_running()  # which unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number: int, _frame: FrameType | None) -> None:
    leave_quietly()
    raise Stopped("stopped", number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
