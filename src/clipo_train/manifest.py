"""A list of a folder's files with their sizes and hashes, by which damage to them is noticed."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """Says what is wrong with which file."""


def write_manifest(folder: Path) -> None:
    """Lists all files of a folder in its `manifest.json`."""
    listed = {name: {"size": path.stat().st_size, "sha256": _hash(path)} for name, path in _files(folder).items()}
    (folder / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def check_manifest(folder: Path, hashed: Sequence[str] | None = None) -> None:
    """That the folder holds the files of its manifest, all of them and no others, as they were when it was written.

    Args:
        folder: With a `manifest.json`.
        hashed: Files to read and compare by their hash; the others are compared by size. All when not given.

    Raises:
        DamagedError: It does not; names the file.
    """
    files = _files(folder)
    listed = _read(folder / MANIFEST)
    for name in sorted(files.keys() | listed.keys()):
        if name not in files:
            raise DamagedError(f"{name!r} is missing")
        if name not in listed:
            raise DamagedError(f"{name!r} is not a file of it")
        size = files[name].stat().st_size
        if size != listed[name]["size"]:
            raise DamagedError(f"{name!r} has {size} bytes, not {listed[name]['size']}")
        if (hashed is None or name in hashed) and _hash(files[name]) != listed[name]["sha256"]:
            raise DamagedError(f"{name!r} is not what was written")


def _read(path: Path) -> dict[str, dict[str, str | int]]:
    """The manifest, of which a damaged one may be anything."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if all(facts.keys() == {"size", "sha256"} for facts in listed.values()):
            return dict(listed)
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST!r} is missing") from None
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    raise DamagedError(f"{MANIFEST!r} is not what was written")


def _files(folder: Path) -> dict[str, Path]:
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    paths.pop(MANIFEST, None)
    return paths


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
