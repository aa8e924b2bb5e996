"""Ground truths spelled as a person writes them, alternatives, and messages in every form they are stored in."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.rows import ground_truths
from clipo_train.types import Example
from clipo_train.verifiers import load_verifier
from clipo_train.verify_data import answer_as_completion, check_data


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.00001, ["0.00001"]),
        (3e22, ["30000000000000000000000"]),
        (7.0, ["7"]),
        (-0.0, ["0"]),
        (0.1, ["0.1"]),
        (np.float32(0.1), ["0.1"]),
        (np.int64(7), ["7"]),
        (np.array(["7", "8"]), ["7", "8"]),
        (torch.tensor(7), ["7"]),
        (torch.tensor([7, 8]), ["7", "8"]),
        (Decimal("7.50"), ["7.5"]),
        (Decimal("1E+3"), ["1000"]),
        (b"7", ["7"]),
        (True, ["True"]),
        (dt.date(2024, 5, 1), ["2024-05-01"]),
        (dt.datetime(2024, 5, 1), ["2024-05-01"]),
        (["7", 7, 8.0], ["7", "8"]),
        ("1e-05", ["1e-05"]),
    ],
)
def test_ground_truths_as_their_type_says(value: Any, spelled: list[str]) -> None:
    assert ground_truths(value) == spelled


@pytest.mark.parametrize("value", [None, {"value": 7}, [], [["7"]], [None], float("nan"), b"\xff", "\ud800", 1j])
def test_no_ground_truth(value: Any) -> None:
    with pytest.raises(TypeError, match="an answer"):
        ground_truths(value)


def load(folder: Path, *rows: Any) -> list[Example]:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_examples(str(path))


def test_alternatives_are_judged_one_after_the_other(tmp_path: Path) -> None:
    (example,) = load(tmp_path, {"prompt": "p", "answer": ["seven", "7"]})
    with load_verifier("exact_match") as pool:
        verdicts = pool.verify([example] * 3, ["seven", "7", "8"])
        check = check_data("a", [example], pool)
    assert [verdict.success for verdict in verdicts] == [True, True, False]
    assert check.exceptions == {"truth": [], "other": [], "none": []}


def test_an_exponent_is_judged_as_a_completion_writes_it() -> None:
    assert answer_as_completion("math", Example("p", "1e-05", "s")) == r"The answer is \boxed{1 \times 10^{-5}}."
    assert answer_as_completion("exact_match", Example("p", "1e-05", "s")) == "1e-05"


def test_types_of_parquet_columns(tmp_path: Path) -> None:
    columns = {
        "float": pa.array([0.1], pa.float32()),
        "bytes": pa.array([b"7"]),
        "list": pa.array([["7", "8"]]),
        "decimal": pa.array([Decimal("7.50")]),
    }
    parquet.write_table(pa.table({"prompt": ["p"], **columns}), tmp_path / "a.parquet")
    found = [load_examples(str(tmp_path / "a.parquet"), columns={"answer": name})[0] for name in columns]
    assert [(item.answer, item.alternatives) for item in found] == [("0.1", ()), ("7", ()), ("7", ("8",)), ("7.5", ())]


def test_a_damaged_parquet_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"prompt": ["p" * 99] * 99, "answer": list(range(99))}), path)
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="data: expected a parquet file, got "):
        load_examples(str(path))


@pytest.mark.parametrize("text", [False, True])
def test_verls_columns_as_objects_and_as_json_text(tmp_path: Path, text: bool) -> None:
    store = json.dumps if text else lambda value: value
    prompt = [{"role": "user", "content": "q"}]
    row = {"data_source": "d", "prompt": store(prompt), "reward_model": store({"ground_truth": "7"})}
    (example,) = load(tmp_path, row | {"extra_info": store({"index": 1})})
    assert example == Example(({"role": "user", "content": "q"},), "7", "d", {"index": 1})
    with pytest.raises(ConfigError, match=r"line 1 of .*got an extra_info that is str, not an object"):
        load(tmp_path, row | {"extra_info": "none"})


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image": None}]}, "ab"),
        ({"content": ["a", {"text": "b"}]}, "ab"),
        ({"content": "a", "tool_calls": None}, "a"),
        ({"content": None}, "a message whose content is null, not text"),
        ({"content": 3}, "a message whose content is int, not text"),
        ({"content": [{"type": "image"}]}, "a message with a part that is 'image', not text"),
        ({"content": "", "tool_calls": [{"id": 1}]}, "a message with tool_calls"),
        ({"content": "a", "role": "human"}, "a message whose role is 'human', not one of "),
        ({"content": "a\ud800"}, "a message with half a character"),
    ],
)
def test_contents_of_messages(tmp_path: Path, message: dict[str, Any], content: str) -> None:
    row = {"prompt": [{"role": "user", **message}], "answer": "5"}
    try:
        (example,) = load(tmp_path, row)
    except ConfigError as error:
        assert f"in line 1 of '{tmp_path}/a.jsonl', got {content}" in str(error)  # noqa: PT017 - read or refused
    else:
        assert example.prompt == ({"role": "user", "content": content},)


def test_other_files_and_options_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="hf:json or hf:csv"):
        load_examples(str(tmp_path / "a.json"))
    with pytest.raises(ConfigError, match=r"data\.options: expected a data set that is loaded whole"):
        load_examples("hf:json", options={"streaming": True})
    with pytest.raises(ConfigError, match=r"data\.options: expected one split"):
        load_examples("hf:json", options={"split": ["train", "test"]})


def test_a_data_set_that_is_saved_with_a_format(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for kind in ("torch", "numpy", "pandas"):
        found = datasets.Dataset.from_dict({"prompt": ["p", "q"], "answer": [7, 8]}).select([1]).with_format(kind)
        found.save_to_disk(tmp_path / kind)
        assert [example.answer for example in load_examples(f"hf:{tmp_path}/{kind}")] == ["8"]
