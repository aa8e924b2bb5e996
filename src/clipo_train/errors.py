"""Errors a user can mend, each in one line."""

import re

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
    r"Parsing error encountered for (\S+): (.*)": r"\1: expected NAME=VALUE, a list or JSON, got something else (\2)",
}


def parser_error(text: str) -> str:
    """An error of argparse's in the form of ours."""
    text = " ".join(text.split())
    for pattern, ours in _PARSER_ERRORS.items():
        if match := re.fullmatch(pattern, text):
            return match.expand(ours)
    return text


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
