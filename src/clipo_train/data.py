"""Tasks from the test bed, reasoning-gym, Hugging Face datasets, parquet and JSON lines.

A source is one of

- `arithmetic:SPLIT`: the test bed, see `clipo_train.testbed.arithmetic`;
- `reasoning_gym:TASK`: a generator of the reasoning-gym package, with `options` such as `size` or `seed`;
- `hf:NAME[:SPLIT]`: a data set of the Hugging Face hub, or a folder that `save_to_disk` wrote or that holds data files,
  read by the `datasets` package (`pip install 'clipo[datasets]'`), with `options` such as `name` for `load_dataset`;
- a `.parquet` or `.jsonl` file.

A row of the last two has `prompt` (text or chat messages) and `answer`, and if present `source`; anything else is
metadata, of which `verifier` may name the row's own. A row in verl's schema has the answer in
`reward_model.ground_truth`, the source in `data_source` and its metadata in `extra_info`. Where your columns have other
names, `columns` says which.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clipo_train.errors import ConfigError
from clipo_train.testbed import arithmetic
from clipo_train.types import Column, Example, Message


def load_examples(
    source: str,
    *,
    prompt_prefix: str = "",
    prompt_suffix: str = "",
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[Column, str] | None = None,
) -> list[Example]:
    """Loads the tasks of a source.

    Args:
        source: See the module.
        prompt_prefix: Put before every prompt (its last user message) that does not begin with it.
        prompt_suffix: Put on a line of its own after every prompt that does not end with it.
        limit: At most that many, drawn at random.
        seed: Of that draw, and of reasoning-gym's tasks unless `options` has one.
        options: Of a reasoning-gym task, or of `datasets.load_dataset`.
        columns: Where rows have their `prompt`, `answer` and `source`, if not under these names; a dot leads into a
            nested field, as in `{"answer": "solution.final"}`.

    Raises:
        ConfigError: A source that is unknown, missing, empty or malformed; names the field, or the file and row.
    """
    kind, _, name = source.partition(":")
    if kind == "arithmetic":
        examples = _arithmetic(name)
    elif kind == "reasoning_gym":
        examples = _reasoning_gym(name, {"seed": seed, **(options or {})})
    elif kind == "hf":
        examples = _hugging_face(name, options or {}, columns or {})
    else:
        examples = _file(Path(source), columns or {})
    if not examples:
        raise ConfigError(f"data: expected at least one example in {source!r}, got none")
    if limit is not None and limit < len(examples):
        examples = random.Random(seed).sample(examples, limit)  # noqa: S311 - a selection, no secret
    return [_reworded(example, prompt_prefix, prompt_suffix) for example in examples]


def _arithmetic(split: str) -> list[Example]:
    if split not in arithmetic.SPLITS:
        raise ConfigError(f"data: expected arithmetic:SPLIT with one of {', '.join(arithmetic.SPLITS)}, got {split!r}")
    return arithmetic.problems(split)


def _reasoning_gym(task: str, options: dict[str, Any]) -> list[Example]:
    import reasoning_gym

    try:
        entries = list(reasoning_gym.create_dataset(task, **options))
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"data: expected a task of reasoning-gym and its options, got {task!r}, {options}: {error}"
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


def _hugging_face(name: str, options: Mapping[str, Any], columns: Mapping[Column, str]) -> list[Example]:
    try:
        import datasets
    except ImportError:
        raise ConfigError("data: expected datasets for hf:, got none: pip install 'clipo[datasets]'") from None
    path, _, split = name.partition(":")
    saved = any((Path(path) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    load: Callable[..., Any] = datasets.load_from_disk if saved else datasets.load_dataset
    try:
        found = load(path, **options)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"data: expected a data set that datasets can load, got {path!r}: {reason}") from error
    splits = found if isinstance(found, datasets.DatasetDict) else {str(found.split or "train"): found}
    split = next(iter(splits)) if not split and len(splits) == 1 else split
    if split not in splits:
        raise ConfigError(f"data: expected hf:{path}:SPLIT with one of {', '.join(splits)}, got {split!r}")
    return _parse(splits[split], f"hf:{name}", path.rstrip("/"), columns)


def _file(path: Path, columns: Mapping[Column, str]) -> list[Example]:
    readers: dict[str, Callable[[Path], Iterable[Any]]] = {".parquet": _parquet_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        wanted = "arithmetic:SPLIT, reasoning_gym:TASK, hf:NAME or a .parquet or .jsonl file"
        raise ConfigError(f"data: expected {wanted}, got {str(path)!r}")
    if not path.is_file():
        raise ConfigError(f"data: expected a file, got {str(path)!r}, which is not one")
    return _parse(readers[path.suffix](path), str(path), path.stem, columns)


def _parquet_rows(path: Path) -> Iterable[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return list(parquet.read_table(path).to_pylist())
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"data: expected a parquet file, got {str(path)!r}: {' '.join(str(error).split())}"
        ) from error


def _json_rows(path: Path) -> Iterable[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"data: expected text in UTF-8, got {str(path)!r}: {error}") from None
    for number, line in enumerate(text.splitlines()):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"data: expected JSON in row {number} of {str(path)!r}, got {line[:60]!r}: {error}"
            ) from None


def _parse(rows: Iterable[Any], where: str, name: str, columns: Mapping[Column, str]) -> list[Example]:
    """Rows as examples; `name` is the source of those that do not name theirs."""
    examples = []
    for number, row in enumerate(rows):
        try:
            if not isinstance(row, Mapping):
                raise TypeError(f"a row that is {type(row).__name__}, not an object")
            examples.append(_from_row(row, name, columns))
        except (KeyError, TypeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"data: expected prompt and answer in row {number} of {where!r}, got {what}") from None
    return examples


def _from_row(row: Mapping[str, Any], name: str, columns: Mapping[Column, str]) -> Example:
    verl = isinstance(row.get("reward_model"), Mapping)
    ours = {"prompt": "prompt", "answer": "answer"}
    verls = {"prompt": "prompt", "answer": "reward_model.ground_truth", "source": "data_source"}
    places = {"source": "source"} | (verls if verl else ours) | dict(columns)
    source = _field(row, places["source"]) if "source" in columns or places["source"] in row else None
    metadata = row.get("extra_info") or {} if verl else {k: v for k, v in row.items() if k not in places.values()}
    prompt, answer = _field(row, places["prompt"]), _field(row, places["answer"])
    if answer is None:
        raise TypeError("an answer that is null")
    return Example(_prompt(prompt), str(answer), str(source or name), metadata)


def _field(row: Any, path: str) -> Any:
    """The field of a row at a dotted path; a column with dots in its own name is found too."""
    if path in row:
        return row[path]
    first, _, rest = path.partition(".")
    if not rest or not isinstance(row.get(first), Mapping):
        raise KeyError(path)
    return _field(row[first], rest)


def _prompt(prompt: Any) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        raise TypeError(f"a prompt that is {type(prompt).__name__}, not text or messages")
    for message in prompt:
        if not isinstance(message, Mapping):
            raise TypeError(f"a message that is {type(message).__name__}, not an object")
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
