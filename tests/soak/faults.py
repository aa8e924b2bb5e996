"""Disks that are full, and checkpoints that are damaged."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BALLAST = "ballast"
_PAGE = 4096


@contextmanager
def disk(folder: Path, megabytes: int = 64) -> Iterator[bool]:
    """A disk of its own for a folder, in the block; False where mounting one is not permitted."""
    folder.mkdir()
    size = f"size={megabytes}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "soak", folder], capture_output=True, check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, left: int) -> None:
    """Leaves that many bytes of a disk, to a page."""
    size = shutil.disk_usage(folder).free - left
    with suppress(OSError), (folder / BALLAST).open("ab", buffering=0) as file:  # others write to it too
        for _ in range(size // _PAGE):
            file.write(bytes(_PAGE))


def damage(checkpoint: Path, rng: random.Random) -> tuple[str, Path]:
    """Flips a bit of a file, cuts it short or deletes it.

    Returns:
        What was done, and to which file.
    """
    path = rng.choice([path for path in sorted(checkpoint.rglob("*")) if path.is_file()])
    data = bytearray(path.read_bytes())
    match rng.choice(("flipped", "flipped", "cut short", "deleted")):
        case "flipped":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            return "a flipped bit", path
        case "cut short":
            path.write_bytes(data[: rng.randrange(len(data))])
            return "a truncation", path
    path.unlink()
    return "a deletion", path


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for its lock, which says who was there last."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if _counts(path)}


def _counts(path: Path) -> bool:
    return path.is_file() and path.name != ".lock"
