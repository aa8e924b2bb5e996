"""Errors a user can mend, each in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that reorder text, and surrogates."""


class ConfigError(ValueError):
    """Names the field or argument, what was expected and what it got; the CLI prints it and exits with 2."""


class NonFiniteError(ConfigError):
    """The policy, its loss or its gradient is no longer finite; what was saved before still is."""


_PARSER_ERRORS = {
    r"(?:argument )?(--\S+): expected one argument": r"\1: expected a value, got none",
    r"(?:argument )?(--\S+): invalid (\w+) value: (.*)": r"\1: expected a value of type \2, got \3",
    r"unrecognized arguments: (\S+).*": r"\1: expected a field of the configuration, got this unknown one",
    r"argument ([^\s/]+)\S*: ignored explicit argument (.*)": r"\1: expected no value, got \2",
    r'error parsing value for field "(\S+)" .*': r"\1: expected a value that can be read, got something else",
    r"Parsing error encountered for (\S+): (.*)": r"\1: expected NAME=VALUE, a list or JSON, got something else (\2)",
}


def parser_error(text: str) -> str:
    """An error of argparse's in the form of ours."""
    text = " ".join(text.split())
    for pattern, ours in _PARSER_ERRORS.items():
        if match := re.fullmatch(pattern, text):
            return match.expand(ours)
    return text


@contextmanager
def one_line(wanted: str) -> Iterator[None]:
    """Turns whatever a library raises in the block, for foreign input, into one line; few of them document what.

    Args:
        wanted: The line's beginning: `field: expected ..., got ...`.

    Raises:
        ConfigError: The block failed.
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(f"{wanted}: {reason(error.__cause__ or error)}") from error


def reason(error: BaseException, *, typed: bool = False) -> str:
    """Returns what an error says, in one line, after its type if `typed` or if its text alone says too little."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own fault
        text = ""
    if typed or not text or isinstance(error, KeyError | SystemExit):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return shortened(text)


def shortened(text: str, length: int = 160) -> str:
    """Returns a text's beginning and end, of at most about this length in all."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns a text without characters that a terminal acts on: each becomes its escape, such as `\x1b`.

    Args:
        text: The text.
        lines: Keep its line breaks.
    """
    return _CONTROL.sub(lambda match: match[0] if lines and match[0] == "\n" else ascii(match[0])[1:-1], text)
