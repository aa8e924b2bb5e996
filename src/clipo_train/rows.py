"""Rows of a data set as examples: the prompt's messages, and ground truths spelled as a person writes them."""

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from clipo_train.errors import ConfigError
from clipo_train.types import Column, Example, Message

_ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXT_PARTS = ("text", "input_text", "output_text")


def parse_rows(rows: Iterable[tuple[str, Any]], where: str, name: str, columns: Mapping[Column, str]) -> list[Example]:
    """Returns rows as examples.

    Args:
        rows: Each with its place in the file, such as `line 3`.
        where: The file or data set, for messages.
        name: Source of the rows that do not name theirs.
        columns: As in `clipo_train.data.load_examples`.

    Raises:
        ConfigError: A row is malformed; names the row.
    """
    examples = []
    for place, row in rows:
        try:
            if not isinstance(row, Mapping):
                raise TypeError(f"a row that is {type(row).__name__}, not an object")
            examples.append(_from_row(row, name, columns, f"{place} of {where!r}"))
        except (KeyError, TypeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"data: expected prompt and answer in {place} of {where!r}, got {what}") from None
    return examples


def _from_row(row: Mapping[str, Any], name: str, columns: Mapping[Column, str], place: str) -> Example:
    row = {**row, "reward_model": _json_object(row["reward_model"])} if "reward_model" in row else row
    verl = isinstance(row.get("reward_model"), Mapping)
    ours = {"prompt": "prompt", "answer": "answer"}
    verls = {"prompt": "prompt", "answer": "reward_model.ground_truth", "source": "data_source"}
    places = {"source": "source"} | (verls if verl else ours) | dict(columns)
    source = _field(row, places["source"]) if "source" in columns or places["source"] in row else None
    metadata = {key: value for key, value in row.items() if key not in places.values()}
    if verl:
        metadata = _json_object(row.get("extra_info")) or {}
        if not isinstance(metadata, Mapping):
            raise TypeError(f"an extra_info that is {type(metadata).__name__}, not an object")
    answer, *others = ground_truths(_field(row, places["answer"]))
    source = _encodable(str(source or name), "a source")
    return Example(_prompt(_field(row, places["prompt"])), answer, source, metadata, tuple(others), place)


def _field(row: Any, path: str) -> Any:
    """The field of a row at a dotted path; a column with dots in its own name is found too."""
    if path in row:
        return row[path]
    first, _, rest = path.partition(".")
    if not rest or not isinstance(row.get(first), Mapping):
        raise KeyError(path)
    return _field(row[first], rest)


def _json_object(value: Any) -> Any:
    """The object or list that a text holds as JSON; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


# Ground truths.


def ground_truths(value: Any) -> list[str]:
    """Returns the texts that a row's answer stands for: one, or those of a list, any of which is correct.

    Raises:
        TypeError: It is null, an object, an empty or nested list, not finite, or not text in UTF-8.
    """
    if hasattr(value, "tolist") and not isinstance(value, np.floating):
        value = value.tolist()  # of numpy or torch
    if not isinstance(value, list | tuple | set):
        return [_ground_truth(value)]
    if not value:
        raise TypeError("an answer that is an empty list")
    return list(dict.fromkeys(map(_ground_truth, value)))


def _ground_truth(value: Any) -> str:
    match value:
        case None:
            raise TypeError("an answer that is null")
        case str():
            return _encodable(value, "an answer")
        case bytes():
            return _decoded(value)
        case float() | Decimal() | np.floating():
            return _decimal(Decimal(str(value)))
        case bool():
            return str(value)
        case int():
            return format(Decimal(value), "f")  # str() refuses long ones
        case dt.datetime() if value.time() == dt.time.min and value.tzinfo is None:
            return value.date().isoformat()
        case dt.datetime():
            return value.isoformat(" ")
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return str(value)
    kind = {dict: "an object: name the field that is correct, such as answer.value, in data.columns"}
    raise TypeError(f"an answer that is {kind.get(type(value)) or type(value).__name__}")


def _decimal(value: Decimal) -> str:
    """A number without exponent, and without zeros after its last decimal: `0.00001`, `30000`, `7`."""
    if not value.is_finite():
        raise TypeError(f"an answer that is {value}, not a finite number")
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise TypeError("an answer of bytes that are not text in UTF-8") from None


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{what} with half a character (a lone surrogate): {text[:60]!r}") from None
    return text


# Prompts.


def _prompt(prompt: Any) -> str | tuple[Message, ...]:
    if isinstance(prompt, str) and prompt.lstrip().startswith("["):
        found = _json_object(prompt)
        if isinstance(found, list) and found and all(isinstance(item, Mapping) and "role" in item for item in found):
            prompt = found  # messages that were stored as text
    if isinstance(prompt, str):
        return _encodable(prompt, "a prompt")
    prompt = prompt.tolist() if isinstance(prompt, np.ndarray) else prompt
    if not isinstance(prompt, list | tuple) or not prompt:
        what = "an empty list" if prompt in ([], ()) else type(prompt).__name__
        raise TypeError(f"a prompt that is {what}, not text or messages")
    return tuple(map(_message, prompt))


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message that is {type(message).__name__}, not an object")
    role, content = message["role"], message["content"]
    if role not in _ROLES:
        raise TypeError(f"a message whose role is {role!r}, not one of {', '.join(_ROLES)}")
    if message.get("tool_calls"):
        raise TypeError("a message with tool_calls, which a prompt cannot have")
    return {"role": role, "content": _encodable(_text(content), "a message")}


def _text(content: Any) -> str:
    """The text of a message; text parts are joined as chat templates do, without anything in between."""
    if isinstance(content, str):
        return content
    content = content.tolist() if isinstance(content, np.ndarray) else content
    if not isinstance(content, list | tuple):
        raise TypeError(f"a message whose content is {'null' if content is None else type(content).__name__}, not text")
    return "".join(map(_part, content))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") or "text" if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if kind in _TEXT_PARTS else None
    if not isinstance(text, str):
        raise TypeError(f"a message with a part that is {kind!r}, not text")
    return text
