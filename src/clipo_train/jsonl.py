r"""JSON lines: one JSON value per line, lines separated by `\n` alone.

`str.splitlines` also splits at U+0085, U+2028 and U+2029, which JSON allows inside a string.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipo_train.whole_file import disk_errors

_MAX_DIGITS = 4300
"""Python refuses to convert longer integers from and to text."""

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What a reader may take for the end of a line, and surrogates, which UTF-8 cannot encode."""


def dumps(row: Any) -> str:
    r"""Returns a row as one line that ends in `\n`, whichever characters a reader splits at."""
    text = json.dumps(row, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def append(path: Path, rows: Iterable[Any]) -> None:
    """Appends rows to a file.

    Raises:
        OSError: It cannot be written, or the disk is full; names the file.
    """
    with disk_errors(path), path.open("a", encoding="utf-8", newline="") as file:
        file.writelines(map(dumps, rows))


def read_lines(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, each with its number, which counts from 1.

    A byte order mark and carriage returns at the end of a line are dropped.

    Args:
        path: The file.
        errors: What to do with bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        UnicodeDecodeError: The file is not UTF-8.
    """
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", errors).split("\n"), 1):
        if line.strip(" \t\r"):
            yield number, line.removesuffix("\r")


def loads(line: str) -> Any:
    """Returns the value of a line; an integer too long for Python stays text.

    Raises:
        ValueError: The line is not JSON, nests too deeply or has an object with a key twice.
    """
    try:
        return json.loads(line, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice in an object")
    return found
