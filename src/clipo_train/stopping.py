"""Ctrl-C and SIGTERM: a run ends after the step it is in, and at once when asked a second time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handles a signal.

        Raises:
            Stopped: It is not the first.
        """
        if self.number:
            raise Stopped("stopped at once, nothing of the current step is saved", number)
        self.number = number


@contextmanager
def noted_signals() -> Iterator[StopRequest]:
    """Notes ctrl-C and SIGTERM for the block, where this is the main thread and they are not ignored.

    Raises:
        Stopped: The block failed after it was asked to stop.
    """
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, request.note)
        yield request
    except Exception as error:  # such as of an engine whose processes had the signal too
        if not request.number:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Stopped(f"stopped at once, nothing of the current step is saved ({reason})", request.number) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
