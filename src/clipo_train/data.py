"""Tasks from the test bed, reasoning-gym, Hugging Face datasets, parquet and JSON lines.

A source is one of

- `arithmetic:SPLIT`: the test bed, see `clipo_train.testbed.arithmetic`;
- `reasoning_gym:TASK`: a generator of the reasoning-gym package, with `options` such as `size` or `seed`;
- `hf:NAME[:SPLIT]`: a data set of the Hugging Face hub, or a folder that `save_to_disk` wrote or that holds data files,
  read by the `datasets` package (`pip install 'clipo[datasets]'`), with `options` such as `name` for `load_dataset`;
- a `.parquet` or `.jsonl` file.

A row of the last two has `prompt` (text or chat messages) and `answer`, and if present `source`; anything else is
metadata, of which `verifier` may name the row's own. A row in verl's schema has the answer in
`reward_model.ground_truth`, the source in `data_source` and its metadata in `extra_info`; both may be objects or JSON
text. Where your columns have other names, `columns` says which. An answer that is a list holds alternatives.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipo_train import jsonl
from clipo_train.errors import ConfigError, one_line
from clipo_train.rows import parse_rows
from clipo_train.testbed import arithmetic
from clipo_train.types import Column, Example


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
            answer=_own_answer(entry),
            source=f"reasoning_gym:{task}",
            metadata={"task": task, "options": options, "entry": entry},
        )
        for entry in entries
    ]


def _own_answer(entry: Mapping[str, Any]) -> str:
    """The answer that an entry of reasoning-gym has, or an example of one; empty where only its scorer knows."""
    metadata = entry["metadata"]
    examples = (metadata.get(f"{kind}_answer") for kind in ("example", "example_correct", "possible"))
    answers = (entry["answer"], *examples)
    answer = next((answer for answer in answers if answer is not None), "")
    return answer if isinstance(answer, str) else json.dumps(answer)


def _hugging_face(name: str, options: Mapping[str, Any], columns: Mapping[Column, str]) -> list[Example]:
    try:
        import datasets
    except ImportError:
        raise ConfigError("data: expected datasets for hf:, got none: pip install 'clipo[datasets]'") from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs of an error is in the error
    if options.get("streaming"):
        raise ConfigError("data.options: expected a data set that is loaded whole, got streaming: true; leave it out")
    if isinstance(options.get("split"), list | tuple):
        raise ConfigError(f"data.options: expected one split, such as train+test, got {options['split']!r}")
    path, _, split = name.partition(":")
    saved = any((Path(path) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    load: Callable[..., Any] = datasets.load_from_disk if saved else datasets.load_dataset
    with one_line(f"data: expected a data set that datasets can load, got {path!r}"):
        found = load(path, **options)
    splits = found if isinstance(found, datasets.DatasetDict) else {str(found.split or "train"): found}
    split = next(iter(splits)) if not split and len(splits) == 1 else split
    if split not in splits:
        raise ConfigError(f"data: expected hf:{path}:SPLIT with one of {', '.join(splits)}, got {split!r}")
    with one_line(f"data: expected a data set that datasets can read, got {path!r}"):
        rows = _table_rows(splits[split].with_format("arrow")[:])  # whatever format it was saved with
    return parse_rows(rows, f"hf:{name}", path.rstrip("/"), columns)


def _file(path: Path, columns: Mapping[Column, str]) -> list[Example]:
    readers: dict[str, Callable[[Path], Iterable[tuple[str, Any]]]] = {".parquet": _parquet_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        wanted = "arithmetic:SPLIT, reasoning_gym:TASK, hf:NAME or a .parquet or .jsonl file"
        others = "; read other files by hf:json or hf:csv with data.options {data_files: FILE}"
        raise ConfigError(f"data: expected {wanted}, got {str(path)!r}{others if path.is_file() else ''}")
    if not path.is_file():
        raise ConfigError(f"data: expected a file, got {str(path)!r}, which is not one")
    return parse_rows(readers[path.suffix](path), str(path), path.stem, columns)


def _parquet_rows(path: Path) -> list[tuple[str, Any]]:
    from pyarrow import parquet

    with one_line(f"data: expected a parquet file, got {str(path)!r}"):
        return _table_rows(parquet.read_table(path))


def _table_rows(table: Any) -> list[tuple[str, Any]]:
    """The rows of an Arrow table, each with its place."""
    import pyarrow as pa

    for place, column in enumerate(table.schema):
        if pa.types.is_float32(column.type):  # 0.1 stays 0.1, rather than 0.10000000149011612
            exact = table.column(place).cast(pa.string()).cast(pa.float64())
            table = table.set_column(place, column.name, exact)
    return [(f"row {number}", row) for number, row in enumerate(table.to_pylist())]


def _json_rows(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        for number, line in jsonl.read_lines(path):
            try:
                yield f"line {number}", jsonl.loads(line)
            except ValueError as error:
                raise ConfigError(
                    f"data: expected JSON in line {number} of {str(path)!r}, got {line[:60]!r}: {error}"
                ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"data: expected text in UTF-8, got {str(path)!r}: {error}") from None


def _reworded(example: Example, prefix: str, suffix: str) -> Example:
    """The example with prefix and suffix around its prompt, unless they are there already."""

    def reword(text: str) -> str:
        text = text if text.startswith(prefix) else prefix + text
        return text if text.endswith(suffix) else f"{text}\n{suffix}"

    prompt = example.prompt
    if isinstance(prompt, str):
        prompt = reword(prompt)
    else:
        users = [place for place, message in enumerate(prompt) if message["role"] == "user"]
        last = users[-1] if users else len(prompt) - 1
        message = {"role": prompt[last]["role"], "content": reword(prompt[last]["content"])}
        prompt = (*prompt[:last], message, *prompt[last + 1 :])
    return replace(example, prompt=prompt)
