"""Sources of tasks, and what is said of a bad one."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.types import Column, Example

GSM8K = Path(__file__).parent / "fixtures" / "gsm8k_rows.parquet"
SUFFIX = "Let's think step by step and output the final answer within \\boxed{}."


def write_lines(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def test_parquet_in_verls_schema() -> None:
    examples = load_examples(str(GSM8K))
    assert len(examples) == 16
    assert examples[0].answer == "72"
    assert examples[0].source == "conrl/gsm8k"
    assert examples[0].metadata == {"index": 0, "split": "train"}
    (message,) = examples[0].prompt
    assert isinstance(message, dict)
    assert message["role"] == "user"
    assert message["content"].startswith("Natalia sold clips to 48 of her friends")


def test_the_papers_suffix_is_there_once() -> None:
    for example in load_examples(str(GSM8K), prompt_suffix=SUFFIX):
        assert example.prompt[-1]["content"].count(SUFFIX) == 1
        assert example.prompt[-1]["content"].endswith(f"\n{SUFFIX}")


def test_prefix_and_suffix_go_around_text_and_the_last_message(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    source = write_lines(
        tmp_path / "a.jsonl", {"prompt": "q", "answer": 1, "level": 2}, {"prompt": messages, "answer": "b"}
    )
    text, chat = load_examples(source, prompt_prefix="Now: ", prompt_suffix="Go.")
    assert (text.prompt, text.answer, text.source, text.metadata) == ("Now: q\nGo.", "1", "a", {"level": 2})
    assert chat.prompt == (messages[0], {"role": "user", "content": "Now: q\nGo."})


def test_a_limit_draws_the_same_examples_for_a_seed() -> None:
    drawn = [load_examples("arithmetic:train", limit=5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


def test_reasoning_gym_by_name() -> None:
    examples = load_examples("reasoning_gym:chain_sum", options={"size": 3, "min_terms": 2, "max_terms": 2}, seed=5)
    assert len(examples) == 3
    assert "arithmetic problem" in examples[0].prompt[0]["content"]
    json.dumps(examples[0].metadata)  # it goes to another process


def test_columns_with_names_of_their_own(tmp_path: Path) -> None:
    row = {"question": "q", "solution": {"final": 3, "steps": "s"}, "from": "book", "level": 2}
    source = write_lines(tmp_path / "a.jsonl", row)
    columns: dict[Column, str] = {"prompt": "question", "answer": "solution.final", "source": "from"}
    (example,) = load_examples(source, columns=columns)
    rest = {"solution": row["solution"], "level": 2}
    assert example == Example("q", "3", "book", rest)
    with pytest.raises(ConfigError, match=r"in line 1 of '.*a.jsonl', got no field 'last'"):
        load_examples(source, columns={"prompt": "question", "answer": "solution.last"})


def test_verls_schema_in_json_and_plain_columns_in_parquet(tmp_path: Path) -> None:
    row = {"data_source": "d", "prompt": "q", "reward_model": {"ground_truth": "7"}, "extra_info": {"index": 1}}
    assert load_examples(write_lines(tmp_path / "a.jsonl", row)) == [Example("q", "7", "d", {"index": 1})]
    parquet.write_table(pa.table({"prompt": ["q"], "answer": [7], "level": [2]}), tmp_path / "b.parquet")
    assert load_examples(str(tmp_path / "b.parquet")) == [Example("q", "7", "b", {"level": 2})]


def test_hugging_face_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"question": ["q", "r"], "answer": ["1 + 1\n#### 2", "#### 3"]}
    one, other = datasets.Dataset.from_dict(rows), datasets.Dataset.from_dict({"question": ["s"], "answer": ["4"]})
    columns: dict[Column, str] = {"prompt": "question"}
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": other}).save_to_disk(tmp_path / "both")
    (tmp_path / "files").mkdir()
    write_lines(tmp_path / "files" / "train.jsonl", {"question": "t", "answer": "5"})
    alone = load_examples(f"hf:{tmp_path}/one", columns=columns)
    assert alone[0] == Example("q", "1 + 1\n#### 2", f"{tmp_path}/one")
    assert [item.prompt for item in load_examples(f"hf:{tmp_path}/both:test", columns=columns)] == ["s"]
    options = {"cache_dir": str(tmp_path / "cache")}
    assert [item.answer for item in load_examples(f"hf:{tmp_path}/files", columns=columns, options=options)] == ["5"]
    for source, message in {
        f"{tmp_path}/both": f"data: expected hf:{tmp_path}/both:SPLIT with one of train, test, got ''",
        f"{tmp_path}/both:dev": f"data: expected hf:{tmp_path}/both:SPLIT with one of train, test, got 'dev'",
        f"{tmp_path}/none": f"data: expected a data set that datasets can load, got '{tmp_path}/none': ",
        f"{tmp_path}/one:train:x": f"data: expected hf:{tmp_path}/one:SPLIT with one of train, got 'train:x'",
    }.items():
        with pytest.raises(ConfigError) as error:
            load_examples(f"hf:{source}", columns=columns)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


def test_hugging_face_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"data: expected datasets for hf:, got none: pip install 'clipo\[datasets\]'"
    ):
        load_examples("hf:openai/gsm8k")
