"""Reads the configuration from YAML and the command line, and writes it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from clipo_train.config import ClipoConfig, TrainConfig
from clipo_train.errors import ConfigError, parser_error

Section = TypeVar("Section")

_PRESETS = Path(__file__).with_name("presets")
_METHODS = ("grpo", "dr_grpo", "dapo", "gspo", "gmpo")

PRESETS = tuple(name for method in _METHODS for name in (method, f"{method}+clipo"))
"""Methods by their papers' numbers, each without and with CLIPO."""


def load_config(path: Path, overrides: Sequence[str] = (), *, suite: Mapping[str, Any] | None = None) -> TrainConfig:
    """Reads a YAML file and overrides fields of it, as in `["--clipo.weight", "0.1"]`.

    Args:
        path: The file. It, or `overrides`, may name a `preset`, whose fields count where neither has them.
        overrides: Arguments of the command line.
        suite: Fields that override the file's, and are overridden by the command line's.

    Raises:
        ConfigError: A missing or unreadable file, an unknown field or preset, a value of a wrong type or out of range.
    """
    return read_fields([read_yaml(path), suite or {}, _cli_values(overrides)])


def read_fields(layers: Sequence[Mapping[str, Any]]) -> TrainConfig:
    """A configuration from fields, of which a later layer's win, and any layer's over those of a `preset`.

    Raises:
        ConfigError: As `load_config`.
    """
    values = merged(layers)
    name = values.get("preset")
    return validated(TrainConfig, merged([*([] if name is None else _preset(name)), values]))


def validated(kind: type[Section], values: Mapping[str, Any]) -> Section:
    """A configuration, or a section of one, from its fields.

    Raises:
        ConfigError: An unknown field, a value of a wrong type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def read_clipo(values: Any) -> ClipoConfig:
    """The section `clipo` alone, from the fields that another trainer's configuration has of it.

    Raises:
        ConfigError: As `load_config`.
    """
    return read_section(ClipoConfig, values, "clipo")


def read_section(kind: type[Section], values: Any, name: str) -> Section:
    """A section of this name in another trainer's configuration.

    Raises:
        ConfigError: As `load_config`.
    """
    return validated(dict[str, kind], {name: values})[name]  # type: ignore[valid-type]


def dump_config(config: TrainConfig) -> str:
    """The whole configuration as YAML, which `load_config` reads back to an equal one."""
    values = TypeAdapter(TrainConfig).dump_python(config, mode="json")
    return yaml.safe_dump(values, sort_keys=False)


def merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Fields of all layers; a later one's wins, section by section."""
    values: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping) and isinstance(values.get(name), Mapping):
                values[name] = {**values[name], **value}
            else:
                values[name] = value
    return values


def _preset(name: Any) -> list[dict[str, Any]]:
    """A preset's layers."""
    if name not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return [read_yaml(_PRESETS / f"{part}.yaml") for part in name.split("+")]


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


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: It is missing, unreadable, or no mapping.
    """
    if not path.is_file():
        raise ConfigError(f"config: expected a YAML file, got {str(path)!r}, which is not a file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: expected YAML, got {str(path)!r}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config: expected a mapping of fields in {str(path)!r}, got {type(values).__name__}")
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
        raise ConfigError(parser_error(str(error).removeprefix("error parsing CLI: "))) from None


def _one_line(error: ValidationError) -> str:
    """The first of pydantic's errors as `field: expected ..., got ...`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "invalid_key"):
        return f"{where}: expected a field of the configuration, got this unknown one"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    wanted = re.sub(r"^.* should (be|have) ", "", message)
    return f"{where}: expected {wanted}, got {first['input']!r}"
