"""Reads YAML files, and refuses what YAML allows but no configuration means."""

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode

from clipo_train.errors import ConfigError

_MOST_VALUES = 100_000
_CONVERSION = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What PyYAML's constructors raise for a value that its tag does not fit, such as `!!int x` or `2026-99-99`."""


class _Loader(yaml.SafeLoader):
    """A `SafeLoader` without keys that occur twice, anchors inside themselves, and aliases that multiply."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Returns a node, counting its values with those of its aliases."""
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if node.end_mark is None:  # an alias to a node that is still being read
            raise ComposerError(None, None, "found an alias inside its own anchor", node.start_mark)
        if id(node) not in self._values:
            children = [] if isinstance(node, ScalarNode) else node.value
            if isinstance(node, MappingNode):
                children = [part for pair in children for part in pair]
            self._values[id(node)] = 1 + sum(self._values[id(child)] for child in children)
        if self._values[id(node)] > _MOST_VALUES:
            raise ComposerError(None, None, f"found more than {_MOST_VALUES} values", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Returns a mapping whose keys all differ."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in [key for key, _ in node.value if isinstance(key, ScalarNode)]:
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                problem = f"found the key {key.value!r} of line {lines[key.tag, key.value]} again"
                raise ComposerError(None, None, problem, key.start_mark)
            lines[key.tag, key.value] = line
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns a YAML file's mapping.

    Raises:
        ConfigError: It is missing or unreadable, is not a mapping, has a key twice or refers to itself.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"config: expected a YAML file, got {str(path)!r}, which is not a file")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"config: expected a YAML file, got {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: expected YAML, got {str(path)!r}: {error}") from None
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config: expected YAML, got {str(path)!r}: {error.problem}{line}") from None
    except (yaml.YAMLError, *_CONVERSION) as error:
        raise ConfigError(f"config: expected YAML, got {str(path)!r}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"config: expected YAML, got {str(path)!r}: nested too deeply") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config: expected a mapping of fields in {str(path)!r}, got {type(values).__name__}")
    return values
