"""Where a run may write, and folders and files that appear whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipo_train.errors import ConfigError, shortened

LOCK, BEGUN = ".lock", ".begun"
"""In a run's folder: its lock, and, until it has a checkpoint, that it is a run's and has none yet to lose."""
CHECKPOINT = re.compile(r"step-[0-9]{8}")
"""The name of a checkpoint's folder, of which the number is that of its step."""

_LONGEST_NAME = 200
"""File systems allow 255 bytes; folders that are being written get longer names."""
_HIDDEN = (".unfinished-", ".dropped-")


def check_run_dir(run_dir: Path, *, resume: bool) -> None:
    """Refuses a folder that holds something else than the run to go on with.

    Raises:
        ConfigError: It exists and `resume` is not set, or it is not that of a run, or it has results but no checkpoint
            to go on from, or it cannot be created.
    """
    shown = repr(str(run_dir))
    found = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if not resume and (found - {LOCK, BEGUN} or (run_dir.exists() and not run_dir.is_dir())):
        raise ConfigError(f"run_dir: expected a new folder (or resume), got {shown}, which exists")
    if any(not name.startswith(".") for name in found):
        _check_resumes(found, shown, bool(checkpoints(run_dir)))
    check_can_create(run_dir, "run_dir")


def _check_resumes(found: set[str], shown: str, has_checkpoint: bool) -> None:
    if "config.yaml" not in found:
        raise ConfigError(f"run_dir: expected the folder of a run or a new one, got {shown}, which has no config.yaml")
    results = sorted(found & {"final", "adapter"})
    if not has_checkpoint and (results or BEGUN not in found):
        has = " and ".join(results or sorted(found & {"metrics.jsonl"}) or ["config.yaml"])
        raise ConfigError(
            f"run_dir: expected the folder of a run to go on with or a new one, got {shown}, which has {has} but no "
            "checkpoint"
        )


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, in order. A folder of another name, such as a copy `step-00000020-best`, is the user's."""
    found = (run_dir / "checkpoints").glob("*")
    return sorted(path for path in found if CHECKPOINT.fullmatch(path.name) and path.is_dir())


def check_path(field: str, path: Path) -> None:
    """Refuses a path that no file system or no library takes.

    Raises:
        ConfigError: It is not text in UTF-8, holds NUL, or has a longer name than our own hidden ones may become.
    """
    shown = shortened(repr(str(path)))
    try:
        parts = [part.encode() for part in path.parts]
    except UnicodeEncodeError:
        raise ConfigError(f"{field}: expected text in UTF-8, got {shown}") from None
    if any(len(part) > _LONGEST_NAME or b"\0" in part for part in parts):
        raise ConfigError(f"{field}: expected names of at most {_LONGEST_NAME} bytes and without NUL, got {shown}")


def check_can_create(folder: Path, field: str) -> None:
    """Refuses a folder that could not be written to."""
    check_path(field, folder)
    ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise ConfigError(f"{field}: expected a folder that can be written, got {str(folder)!r}: see {str(ancestor)!r}")


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to fill in the block, which gets its name, and replaces an older one, when all of it is on the disk."""
    unfinished, dropped = (final.with_name(f"{beginning}{final.name}") for beginning in _HIDDEN)
    remove(unfinished)
    remove(dropped)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _flush(*unfinished.rglob("*"), unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if final.exists():
        final.rename(dropped)
    unfinished.rename(final)
    _flush(final.parent)
    remove(dropped)


def drop(folder: Path) -> None:
    """Removes a folder, which loses its name first: what is left of it after a kill is not taken for the whole."""
    dropped = folder.with_name(f"{_HIDDEN[1]}{folder.name}")
    remove(dropped)
    folder.rename(dropped)
    remove(dropped)


def sweep(folder: Path, name: re.Pattern[str]) -> None:
    """Removes what a killed run has left of `whole_folder` and `drop` in a folder, for folders of such a name."""
    for beginning in _HIDDEN:
        for path in folder.glob(f"{beginning}*"):
            if name.fullmatch(path.name.removeprefix(beginning)):
                remove(path)


def remove(path: Path) -> None:
    """Removes a folder or a file, if there is one; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
