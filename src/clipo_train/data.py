"""Tasks from the test bed, reasoning-gym, parquet and JSON lines.

A source is one of

- `arithmetic:SPLIT`: the test bed, see `clipo_train.testbed.arithmetic`;
- `reasoning_gym:TASK`: a generator of the reasoning-gym package, with `options` such as `size` or `seed`;
- a `.parquet` file in verl's schema: `prompt` (chat messages), `reward_model.ground_truth`, and if present
  `data_source` and `extra_info`;
- a `.jsonl` file of objects with `prompt` (text or chat messages), `answer`, and anything else as metadata.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clipo_train.errors import ConfigError
from clipo_train.testbed import arithmetic
from clipo_train.types import Example, Message


def load_examples(
    source: str,
    *,
    prompt_prefix: str = "",
    prompt_suffix: str = "",
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Example]:
    """Loads the tasks of a source.

    Args:
        source: See the module.
        prompt_prefix: Put before every prompt (its last user message) that does not begin with it.
        prompt_suffix: Put on a line of its own after every prompt that does not end with it.
        limit: At most that many, drawn at random.
        seed: Of that draw, and of reasoning-gym's tasks unless `options` has one.
        options: Of a reasoning-gym task.

    Raises:
        ConfigError: A source that is unknown, missing, empty or malformed; names the field, or the file and row.
    """
    kind, _, name = source.partition(":")
    if kind == "arithmetic":
        examples = _arithmetic(name)
    elif kind == "reasoning_gym":
        examples = _reasoning_gym(name, {"seed": seed, **(options or {})})
    else:
        examples = _file(Path(source))
    if not examples:
        raise ConfigError(f"data: wanted at least one example in {source!r}, got none")
    if limit is not None and limit < len(examples):
        examples = random.Random(seed).sample(examples, limit)  # noqa: S311 - a selection, no secret
    return [_reworded(example, prompt_prefix, prompt_suffix) for example in examples]


def _arithmetic(split: str) -> list[Example]:
    if split not in arithmetic.SPLITS:
        raise ConfigError(f"data: wanted arithmetic:SPLIT with one of {', '.join(arithmetic.SPLITS)}, got {split!r}")
    return arithmetic.problems(split)


def _reasoning_gym(task: str, options: dict[str, Any]) -> list[Example]:
    import reasoning_gym

    try:
        entries = list(reasoning_gym.create_dataset(task, **options))
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"data: wanted a task of reasoning-gym and its options, got {task!r}, {options}: {error}"
        ) from error
    return [
        Example(
            prompt=({"role": "user", "content": entry["question"]},),
            answer=str(entry["answer"]),
            source=f"reasoning_gym:{task}",
            metadata={"task": task, "options": options, "entry": entry},
        )
        for entry in entries
    ]


def _file(path: Path) -> list[Example]:
    readers: dict[str, Callable[[Path], Iterable[Any]]] = {".parquet": _parquet_rows, ".jsonl": _json_rows}
    parsers = {".parquet": _from_verl, ".jsonl": _from_json}
    if path.suffix not in readers:
        wanted = "arithmetic:SPLIT, reasoning_gym:TASK or a .parquet or .jsonl file"
        raise ConfigError(f"data: wanted {wanted}, got {str(path)!r}")
    if not path.is_file():
        raise ConfigError(f"data: wanted a file, got {str(path)!r}, which is not one")
    examples = []
    for number, row in enumerate(readers[path.suffix](path)):
        try:
            if not isinstance(row, Mapping):
                raise TypeError(f"a row that is {type(row).__name__}, not an object")
            examples.append(parsers[path.suffix](row, path.stem))
        except (KeyError, TypeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"data: wanted prompt and answer in row {number} of {str(path)!r}, got {what}") from None
    return examples


def _parquet_rows(path: Path) -> Iterable[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return list(parquet.read_table(path).to_pylist())
    except pa.ArrowInvalid as error:
        raise ConfigError(f"data: wanted a parquet file, got {str(path)!r}: {' '.join(str(error).split())}") from error


def _json_rows(path: Path) -> Iterable[Any]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"data: wanted JSON in row {number} of {str(path)!r}, got {line[:60]!r}: {error}"
            ) from None


def _from_verl(row: Mapping[str, Any], name: str) -> Example:
    answer = row["reward_model"]["ground_truth"]
    return Example(_prompt(row["prompt"]), str(answer), row.get("data_source") or name, row.get("extra_info") or {})


def _from_json(row: Mapping[str, Any], name: str) -> Example:
    rest = {key: value for key, value in row.items() if key not in ("prompt", "answer")}
    return Example(_prompt(row["prompt"]), str(row["answer"]), str(rest.get("source", name)), rest)


def _prompt(prompt: Any) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        raise TypeError(f"a prompt that is {type(prompt).__name__}, not text or messages")
    return tuple({"role": str(message["role"]), "content": str(message["content"])} for message in prompt)


def _reworded(example: Example, prefix: str, suffix: str) -> Example:
    """The example with prefix and suffix around its prompt, unless they are there already."""

    def reword(text: str) -> str:
        text = text if text.startswith(prefix) else prefix + text
        return text if text.endswith(suffix) else f"{text}\n{suffix}"

    prompt = example.prompt
    if isinstance(prompt, str):
        prompt = reword(prompt)
    else:
        *before, last = prompt
        prompt = (*before, {"role": last["role"], "content": reword(last["content"])})
    return Example(prompt, example.answer, example.source, example.metadata)
