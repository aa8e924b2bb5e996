"""One run folder, one run: a lock that ends with its process, however that ends."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipo_train.errors import ConfigError
from clipo_train.folders import LOCK
from clipo_train.whole_file import disk_errors

_log = logging.getLogger(__name__)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the lock of a run folder, which exists, for the block. The kernel releases it when the process ends.

    A file system without locks is used without one, with a warning.

    Raises:
        ConfigError: Another process holds it, or it cannot be written.
    """
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise ConfigError(f"run_dir: expected a folder that can be written, got {str(run_dir)!r}: {error}") from error
    try:
        _lock(descriptor, run_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run_dir: Path) -> None:
    try:
        import fcntl  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
        raise ConfigError(
            f"run_dir: expected a folder that no other run uses, got {str(run_dir)!r}, in which process {holder} trains"
        ) from None
    except (ImportError, OSError) as error:
        _log.warning("run_dir: expected a file system with locks, got %r (%s): it is used without", str(run_dir), error)
    else:
        with disk_errors(run_dir / LOCK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
