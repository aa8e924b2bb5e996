"""Fields of the configuration by their dotted names, and the one that a user meant."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from difflib import SequenceMatcher
from typing import Any, get_args

_SIMILAR = 0.7


def section_of(annotation: Any) -> type | None:
    """Returns the section that a field holds, such as `LoraConfig` of `LoraConfig | None`; None where it holds none."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and is_dataclass(kind)]
    return kinds[0] if kinds and not _is_mapping(annotation) else None


def field_names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all sections and fields; `NAME` stands for a key of the user's choice."""
    for name, info in kind.__pydantic_fields__.items():
        yield f"{prefix}{name}"
        if section := section_of(info.annotation):
            yield from field_names(section, f"{prefix}{name}.")
        elif _is_mapping(info.annotation) and (section := section_of(get_args(info.annotation)[1])):
            yield from field_names(section, f"{prefix}{name}.NAME.")


def suggestion(unknown: str, kind: Any, prefix: str = "") -> str:
    """Returns `; did you mean FIELD?` for the field whose name is most similar, or nothing where none is."""
    meant = most_similar(unknown.replace("-", "_").lower(), field_names(kind, prefix))
    return f"; did you mean {meant}?" if meant else ""


def most_similar(unknown: str, names: Iterable[str]) -> str | None:
    """Returns the name whose last part is most similar, and then the whole of it; None where none is similar."""

    def similarity(name: str) -> tuple[float, float]:
        last, other = (re.split("[./]", text)[-1] for text in (unknown, name))
        return SequenceMatcher(None, last, other).ratio(), SequenceMatcher(None, unknown, name).ratio()

    best = max(names, key=similarity)
    return best if similarity(best)[0] >= _SIMILAR else None


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict
