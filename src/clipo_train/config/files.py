"""Reads the configuration from YAML and the command line, and writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from clipo_train.config import TrainConfig
from clipo_train.errors import ConfigError


def load_config(path: Path, overrides: Sequence[str] = (), *, preset: Mapping[str, Any] | None = None) -> TrainConfig:
    """Reads a YAML file and overrides fields of it, as in `["--clipo.weight", "0.1"]`.

    Args:
        path: The file.
        overrides: Arguments of the command line.
        preset: Fields that override the file's, and are overridden by the command line's.

    Raises:
        ConfigError: A missing or unreadable file, an unknown field, a value of a wrong type or out of range.
    """
    values = _read_yaml(path)
    for name, value in [*(preset or {}).items(), *_cli_values(overrides).items()]:
        if isinstance(value, Mapping) and isinstance(values.get(name), Mapping):
            values[name] = {**values[name], **value}
        else:
            values[name] = value
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def dump_config(config: TrainConfig) -> str:
    """The whole configuration as YAML, which `load_config` reads back to an equal one."""
    values = TypeAdapter(TrainConfig).dump_python(config, mode="json")
    return yaml.safe_dump(values, sort_keys=False)


def flat_config(config: TrainConfig) -> dict[str, str | bool | int | float]:
    """The whole configuration with dotted names, as trackers want it: a value that is no scalar becomes text."""
    values = flatten(TypeAdapter(TrainConfig).dump_python(config, mode="json"))
    return {name: value if isinstance(value, str | int | float) else str(value) for name, value in values.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"config: wanted a YAML file, got {str(path)!r}, which is not a file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: wanted YAML, got {str(path)!r}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config: wanted a mapping of fields in {str(path)!r}, got {type(values).__name__}")
    return values


def _cli_values(arguments: Sequence[str]) -> dict[str, Any]:
    """Only the values given on the command line, nested like the configuration, not yet validated."""
    fields: dict[str, Any] = {
        name: (info.annotation, info)
        for name, info in TrainConfig.__pydantic_fields__.items()  # type: ignore[attr-defined]
    }
    settings: type[BaseSettings] = create_model("TrainConfig", __base__=BaseSettings, **fields)
    try:
        return CliSettingsSource[Any](
            settings,
            cli_prog_name="clipo train CONFIG.yaml",
            cli_parse_args=list(arguments),
            cli_avoid_json=True,
            cli_exit_on_error=False,
        )()
    except SettingsError as error:
        raise ConfigError(" ".join(str(error).removeprefix("error parsing CLI: ").split())) from None


def _one_line(error: ValidationError) -> str:
    """The first of pydantic's errors as `field: wanted ..., got ...`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{where}: wanted a field of the configuration, got this unknown one"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{where}: {message[0].lower()}{message[1:]}, got {first['input']!r}"
