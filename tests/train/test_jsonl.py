"""JSON lines: what is written comes back, whichever characters a reader splits at; and what is read or refused."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipo_train import jsonl
from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.metrics import MetricsLog
from clipo_train.report.runs import read_lines

ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff"
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(ENDS))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUICK
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_any_text_survives_the_log_and_a_resume(tmp_path: Path, texts: list[str]) -> None:
    log = MetricsLog(tmp_path, Accelerator(cpu=True))
    log.completions_path.unlink(missing_ok=True)
    log.completions([{"step": 1, "completion": text} for text in texts])
    assert len(log.completions_path.read_text(encoding="utf-8").splitlines()) == len(texts)
    log.completions([{"step": 2, "completion": "later"}])
    log.rewind(1)
    assert [row["completion"] for row in read_lines(log.completions_path)] == texts


def test_a_line_cut_short_inside_a_character_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_bytes('{"step": 1}\n{"step": 2, "completion": "é'.encode()[:-1])
    assert list(read_lines(path)) == [{"step": 1}]


def test_half_a_character_is_written_as_an_escape() -> None:
    assert jsonl.loads(jsonl.dumps("a\ud800b")) == "a\ud800b"


@QUICK
@given(prompt=VALUES, answer=VALUES, rest=st.dictionaries(TEXT, VALUES, max_size=2))
def test_any_row_is_read_or_refused_in_one_line(tmp_path: Path, prompt: Any, answer: Any, rest: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl.dumps(rest | {"prompt": prompt, "answer": answer}), encoding="utf-8")
    try:
        (example,) = load_examples(str(path))
    except ConfigError as error:
        assert re.match(r"data: expected [^\n]*\Z", str(error))  # noqa: PT017 - read or refused
    else:
        assert isinstance(example.prompt, str)
        assert all(isinstance(truth, str) for truth in (example.answer, *example.alternatives))
        assert not (isinstance(answer, float) and not math.isfinite(answer))


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        ('\ufeff{"prompt":"p","answer":"5"}\r\n\r\n{"prompt":"p","answer":6}', ["5", "6"]),
        ('{"prompt":"a\u2028b\u2029c\x85d","answer":"5"}\n\n \n', ["5"]),
        ('{"prompt":"p","answer":' + "9" * 5000 + "}", ["9" * 5000]),
    ],
)
def test_what_json_lines_may_hold(tmp_path: Path, data: str, answers: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(data, encoding="utf-8", newline="")
    assert [example.answer for example in load_examples(str(path))] == answers


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ('{"prompt":"p","answer":NaN}', "an answer that is NaN, not a finite number"),
        ('{"prompt":"p","answer":1e999}', "an answer that is Infinity, not a finite number"),
        ('{"prompt":"p","answer":"\\ud800"}', "an answer with half a character"),
        ('{"prompt":"p","answer":1,"answer":2}', "the key 'answer' twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_refused_by_its_line(tmp_path: Path, line: str, got: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt":"p","answer":1}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"in line 3 of .*a\.jsonl', got ") as error:
        load_examples(str(path))
    assert got in str(error.value)
