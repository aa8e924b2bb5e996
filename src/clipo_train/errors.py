"""Errors a user can mend, each in one line."""

import re


class ConfigError(ValueError):
    """Names the field or argument, what was expected and what it got; the CLI prints it and exits with 2."""


class NonFiniteError(ConfigError):
    """The policy, its loss or its gradient is no longer finite; what was saved before still is."""


_PARSER_ERRORS = {
    r"(?:argument )?(--\S+): expected one argument": r"\1: expected a value, got none",
    r"(?:argument )?(--\S+): invalid (\w+) value: (.*)": r"\1: expected a value of type \2, got \3",
    r"unrecognized arguments: (\S+).*": r"\1: expected a field of the configuration, got this unknown one",
}


def parser_error(text: str) -> str:
    """An error of argparse's in the form of ours."""
    text = " ".join(text.split())
    for pattern, ours in _PARSER_ERRORS.items():
        if match := re.fullmatch(pattern, text):
            return match.expand(ours)
    return text
