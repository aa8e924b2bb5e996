"""Reads fields of the configuration from the command line."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from clipo_train.config import TrainConfig
from clipo_train.config.unknown import suggestion
from clipo_train.errors import ConfigError, parser_error

_OPTIONS = "--data.options"
"""The field whose values may be of any type."""


def read_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns only the values given on the command line, nested like the configuration, not yet validated.

    Raises:
        ConfigError: An unknown field, or a value that is missing or cannot be read.
    """
    fields: dict[str, Any] = {
        name: (info.annotation, info)
        for name, info in TrainConfig.__pydantic_fields__.items()  # type: ignore[attr-defined]
    }
    settings: type[BaseSettings] = create_model("TrainConfig", __base__=BaseSettings, **fields)
    try:
        return CliSettingsSource[Any](
            settings,
            cli_prog_name="clipo train CONFIG.yaml",
            cli_parse_args=[*_typed(with_negative_numbers(arguments))],
            cli_avoid_json=True,
            cli_exit_on_error=False,
        )()
    except SettingsError as error:
        message = parser_error(str(error).removeprefix("error parsing CLI: "))
        unknown = re.match(r"--([^=: ]+).*: expected a field of the configuration", message)
        raise ConfigError(message + (suggestion(unknown[1], TrainConfig) if unknown else "")) from None
    except RecursionError:
        raise ConfigError("command line: expected values, got one that is nested too deeply") from None


def with_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """Joins a negative number to the option before it; argparse takes `-5e-1` for an option of its own."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and _is_negative_number(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _is_negative_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.startswith("-")


def _typed(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with `data.options` as JSON."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != _OPTIONS:
            yield argument
        elif equals or (value := next(rest, "")):
            yield f"{name}={value if value.strip().startswith('{') else json.dumps(_options(value))}"
        else:
            yield argument


def _options(text: str) -> dict[str, Any]:
    """`size=5,name=main` -> `{"size": 5, "name": "main"}`."""
    options = {}
    for part in re.split(r",(?=[^,=\[\]{}\"]+=)", text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"data.options: expected NAME=VALUE or a JSON object, got {text!r}")
        if name.strip() in options:
            raise ConfigError(f"data.options: expected every name once, got {name.strip()!r} twice")
        options[name.strip()] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    """A number, a boolean, null, a list, an object or quoted text, as JSON has them; else the text itself."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except (ValueError, RecursionError):
        return text
