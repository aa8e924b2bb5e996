"""Writes files whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one at any moment; a link is replaced, not followed.

    Surrogates, which UTF-8 cannot encode, become their escapes.

    Raises:
        OSError: The folder cannot be written, or the disk is full; then nothing of the new file is left.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # left by a kill, or put there by somebody: never written through
    try:
        with unfinished.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
