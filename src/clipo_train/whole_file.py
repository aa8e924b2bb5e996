"""Writes files whole or not at all, and names what cannot be written."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REPORTED = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors and tokenizers, report what the operating system refused."""


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one at any moment; a link is replaced, not followed.

    Surrogates, which UTF-8 cannot encode, become their escapes.

    Raises:
        OSError: The folder cannot be written, or the disk is full; then nothing of the new file is left.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # left by a kill, or put there by somebody: never written through
    try:
        with (
            disk_errors(path),
            unfinished.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises what the operating system refuses in the block as an `OSError` that names a path, whoever reports it.

    Raises:
        OSError: The disk is full, read-only or broken.
    """
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno(error: BaseException) -> int | None:
    """The number of the operating system's error that an exception is or reports, if it does."""
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):  # torch.save's
        error = error.__context__
    if isinstance(error, OSError):
        return error.errno
    reported = _REPORTED.search(str(error))
    return int(reported[1]) if reported else None
