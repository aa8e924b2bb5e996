"""What is known of a data set and its verifier before training is said before training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clipo_train.config.files import load_config
from clipo_train.data_checks import check_examples
from clipo_train.errors import ConfigError
from clipo_train.trainer import Trainer
from clipo_train.types import Example, Verdict
from clipo_train.verifiers import VerifierPool, load_verifier

CHECK = {"source": "set", "rows": 8, "max_rejected": 0.25}


def examples(*answers: str, **fields: Any) -> list[Example]:
    return [Example("1+1=", answer, **{"source": "gsm8k", **fields}) for answer in answers]


@pytest.mark.parametrize("place", ["training", "evaluation"])
def test_an_unknown_source_is_refused_before_the_first_step(
    config_file: Callable[..., Path], tmp_path: Path, place: str
) -> None:
    rows = {"known": "gsm8k", "unknown": "my_test_set"}
    for name, source in rows.items():
        row = {"prompt": "1+1=", "answer": "2", "source": source}
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    train, test = ("unknown", "known") if place == "training" else ("known", "unknown")
    config = config_file(
        data={"train": str(tmp_path / f"{train}.jsonl"), "verifier": "auto"},
        evaluation={"sets": {"test": str(tmp_path / f"{test}.jsonl")}},
    )
    with pytest.raises(ConfigError, match=r"^data\.verifier: expected a source .*, got 'my_test_set'$"):
        Trainer(load_config(config), show_progress=False)
    assert not (tmp_path / "run").exists()


GYM = {"task": "chain_sum", "entry": {"answer": "2", "metadata": {}}}


@pytest.mark.parametrize(
    ("verifier", "good", "bad", "got"),
    [
        ("arithmetic", Example("1+1=", "2", "s"), Example("How many?", "2", "s"), "the prompt 'How many?'"),
        ("multiple_choice", Example("?", "B", "s"), Example("?", "A or B", "s"), "the ground truth 'A or B'"),
        ("math", Example("?", "7", "s"), Example("?", "So it is $\\boxed{}$.", "s"), "the empty ground truth"),
        ("math", Example("?", "7", "s"), Example("?", " ", "s"), "the empty ground truth ' '"),
        (
            "reasoning_gym",
            Example("?", "2", "s", GYM),
            Example("?", "2", "s", {"task": "chain_sum"}),
            "a row that is no task of reasoning-gym's: it lacks task or entry",
        ),
    ],
)
def test_rows_that_the_verifier_cannot_judge_are_left_out_and_many_are_refused(
    verifier: str, good: Example, bad: Example, got: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = load_verifier(verifier, workers=1)
    assert check_examples([good, bad, good, good], pool, **(CHECK | {"rows": 0})) == [0, 2, 3]
    told = f"data: left out for the verifier '{verifier}': 1 of 4 rows that it cannot judge, such as {got}"
    assert caplog.messages[0].startswith(told)
    assert caplog.messages[0].endswith("in row 1 of 'set'")
    with pytest.raises(
        ConfigError, match=rf"^data: expected rows that the verifier '{verifier}' can judge, got 1 of 2"
    ):
        check_examples([good, bad], pool, **CHECK)


def test_the_row_is_named_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    rows = [*examples("2", "2", "2"), Example("How many?", "2", "s", place="line 9 of 'a.jsonl'")]
    assert check_examples(rows, load_verifier("arithmetic"), **CHECK) == [0, 1, 2]
    assert caplog.messages[0].endswith("in line 9 of 'a.jsonl'")


class Rejecting(VerifierPool):
    """Judges here, and rejects some ground truths."""

    rejected = ("3",)

    def verify(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Verdict]:
        return [
            Verdict(success, float(success))
            for example, completion in zip(examples, completions, strict=True)
            for success in [completion == example.answer not in self.rejected]
        ]


def test_a_few_rejected_ground_truths_are_told_and_many_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    pool = Rejecting("exact_match")
    check_examples(examples("2", "3", "2", "2"), pool, **CHECK)
    assert caplog.messages == ["data: 1 of 4 ground truths of 'set' rejected, such as '3'; see clipo verify-data"]
    with pytest.raises(
        ConfigError,
        match=r"^data\.max_rejected: expected a verifier that accepts .*, got 2 of 4 ground truths of 'set' rejected",
    ):
        check_examples(examples("2", "3", "2", "3"), pool, **CHECK)
    check_examples(examples("2", "3", "2", "3"), pool, **(CHECK | {"rows": 0}))
    check_examples(examples("3", "2", "2", "2"), pool, **(CHECK | {"rows": 2, "max_rejected": 0.5}))  # rows 0 and 2
    assert "1 of 2" in caplog.messages[-1]


def test_nothing_is_judged_of_a_users_verifier() -> None:
    pool = Rejecting("mine:judge")
    pool.rejected = ("2",)
    check_examples(examples("2"), pool, **CHECK)
