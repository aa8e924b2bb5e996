"""Verifiers: what they accept, and that a bad one ends in one line."""

import os
import time
from pathlib import Path

import pytest

from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.types import Example, Verdict
from clipo_train.verifiers import VerifierError, load_verifier

FIXTURES = Path(__file__).parent / "fixtures"
USERS = "verifier_functions"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


def judge(name: str, example: Example, *completions: str, timeout: float = 30.0) -> list[Verdict]:
    with load_verifier(name, timeout=timeout) as verifier:
        return verifier.verify([example] * len(completions), completions)


def test_math_accepts_every_ground_truth_of_gsm8k_and_no_other_number() -> None:
    examples = load_examples(str(FIXTURES / "gsm8k_rows.parquet"))
    with load_verifier("math", timeout=30) as verifier:
        right = verifier.verify(examples, [f"So the answer is \\boxed{{{item.answer}}}." for item in examples])
        wrong = verifier.verify(examples, [f"So it is \\boxed{{{int(item.answer) + 1}}}." for item in examples])
        none = verifier.verify(examples, ["I do not know."] * len(examples))
    assert len(examples) == 16
    assert all(verdict == Verdict(True, 1.0) for verdict in right)
    assert all(verdict == Verdict(False, 0.0) for verdict in wrong + none)


def test_math_takes_the_answer_out_of_a_solution() -> None:
    example = Example("?", "We find $x = 1$, so it is $\\boxed{\\frac{1}{2}}$.", "math")
    verdicts = judge("math", example, "\\boxed{0.5}", "the answer is $\\frac{2}{4}$", "\\boxed{1}")
    assert [verdict.success for verdict in verdicts] == [True, True, False]


def test_reasoning_gym_scores_the_final_answer() -> None:
    (example,) = load_examples("reasoning_gym:chain_sum", options={"size": 1, "seed": 3})
    right, wrong = example.answer, str(int(example.answer) + 1)
    completions = [
        right,
        f"It is {wrong}? <answer>{right}</answer> is it",
        f"that makes {wrong}, no, {right}.",
        wrong,
        "",
    ]
    assert [item.success for item in judge("reasoning_gym", example, *completions)] == [True, True, True, False, False]


def test_exact_match_ignores_white_space_around() -> None:
    verdicts = judge("exact_match", Example("?", "a b", "s"), " a b\n", "ab")
    assert [verdict.success for verdict in verdicts] == [True, False]


def test_a_users_function_gives_a_reward_or_a_verdict() -> None:
    example = Example("?", "7", "mine")
    assert judge(f"{USERS}:half", example, "7", "8") == [Verdict(True, 1.0), Verdict(False, 0.5)]
    assert judge(f"{USERS}:verdict", example, "7") == [Verdict(True, 3.0, True)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "data.verifier: wanted a verdict, got RuntimeError: no such luck from 'verifier_functions:raises'"),
        ("not_a_verdict", "data.verifier: wanted a Verdict, a bool or a reward in [0, 1], got 'yes' from"),
    ],
)
def test_a_bad_verifier_is_named(function: str, message: str) -> None:
    with pytest.raises(VerifierError) as error:
        judge(f"{USERS}:{function}", Example("?", "7", "mine"), "an answer")
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("on 'an answer' of 'mine'")
    assert "\n" not in str(error.value)


def test_a_hanging_verifier_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    example = Example("?", "7", "mine", {"pid_file": str(pid_file)})
    with pytest.raises(VerifierError, match=r"wanted a verdict within 3 s \(data.verifier_timeout\), got none from"):
        judge(f"{USERS}:hangs", example, "7", timeout=3)
    deadline = time.monotonic() + 10
    while _alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(pid_file.read_text()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "wanted one of arithmetic, exact_match, math, reasoning_gym, or module:function, got 'nonsense'"),
        ("no_such_module:f", "wanted module:function, got 'no_such_module:f': No module named 'no_such_module'"),
        (f"{USERS}:f", f"wanted module:function, got '{USERS}:f': module '{USERS}' has no attribute 'f'"),
        (f"{USERS}:NOT_A_FUNCTION", f"wanted a function, got int for '{USERS}:NOT_A_FUNCTION'"),
    ],
)
def test_an_unknown_verifier_is_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_verifier(name)
    assert str(error.value) == f"data.verifier: {message}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
