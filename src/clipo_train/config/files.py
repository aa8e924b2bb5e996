"""Reads the configuration from YAML and the command line, and writes it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from clipo_train.config import ClipoConfig, TrainConfig
from clipo_train.config.command_line import read_arguments
from clipo_train.config.unknown import section_of, suggestion
from clipo_train.config.yaml_files import read_yaml
from clipo_train.errors import ConfigError, shortened

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
    return read_fields([read_yaml(path), suite or {}, read_arguments(overrides)])


def read_fields(layers: Sequence[Mapping[str, Any]]) -> TrainConfig:
    """A configuration from fields, of which a later layer's win, and any layer's over those of a `preset`.

    Raises:
        ConfigError: As `load_config`.
    """
    values = merged(layers)
    name = values.get("preset")
    return validated(TrainConfig, merged([*([] if name is None else _preset(name)), values]))


def validated(kind: type[Section], values: Mapping[str, Any], name: str = "") -> Section:
    """A configuration, or a section of one of this name, from its fields.

    Raises:
        ConfigError: An unknown field, a value of a wrong type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, kind, name)) from None


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
    return validated(kind, values, name)


def dump_config(config: TrainConfig) -> str:
    """The whole configuration as YAML, which `load_config` reads back to an equal one."""
    values = TypeAdapter(TrainConfig).dump_python(config, mode="json")
    return yaml.safe_dump(values, sort_keys=False)


def merged(layers: Sequence[Mapping[str, Any]], kind: Any = TrainConfig) -> dict[str, Any]:
    """Fields of all layers; a later one's wins, section by section at every level.

    A mapping that is a field's value, such as `data.options`, replaces an earlier one as a whole.
    """
    values: dict[str, Any] = {}
    fields = kind.__pydantic_fields__
    for layer in layers:
        for name, value in layer.items():
            section = section_of(fields[name].annotation) if name in fields else None
            if section and isinstance(value, Mapping) and isinstance(values.get(name), Mapping):
                values[name] = merged([values[name], value], section)
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


def _one_line(error: ValidationError, kind: Any, name: str) -> str:
    """The first of pydantic's errors as `field: expected ..., got ...`."""
    first = error.errors()[0]
    where = ".".join([name] * bool(name) + [str(part) for part in first["loc"]])
    if first["type"] in ("unexpected_keyword_argument", "invalid_key"):
        meant = suggestion(where, kind, f"{name}." if name else "")
        return f"{where}: expected a field of the configuration, got this unknown one{meant}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    wanted, changed = re.subn(r"^.* should (be|have) ", "", message)
    wanted = wanted if changed else f"a valid value, {message[:1].lower()}{message[1:]}"
    return f"{where}: expected {wanted}, got {shortened(repr(first['input']))}"
