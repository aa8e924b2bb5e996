"""Verifiers: what they accept, and that a bad one ends in one line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.types import Example, Verdict
from clipo_train.verifier_worker import as_verdict
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
        f"that makes {wrong}, no.\n{right}.",
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
        (
            "raises",
            "data.verifier: expected a verdict, got RuntimeError: no such luck from 'verifier_functions:raises'",
        ),
        ("exits", "data.verifier: expected a verdict, got SystemExit: 0 from 'verifier_functions:exits'"),
        ("not_a_verdict", "data.verifier: expected a Verdict, a bool or a reward in [0, 1], got 'yes' from"),
        ("a_function", "data.verifier: expected a Verdict, a bool or a reward in [0, 1], got <function"),
        ("not_a_number", "data.verifier: expected a Verdict, a bool or a reward in [0, 1], got nan from"),
        ("a_number_for_success", "data.verifier: expected Verdict.success to be a bool, got 1 from"),
        ("no_reward", "data.verifier: expected Verdict.reward to be a number of at most 1e+15, got None from"),
        ("infinite", "data.verifier: expected Verdict.reward to be a number of at most 1e+15, got inf from"),
        ("text_for_process", "data.verifier: expected Verdict.process to be a bool or None, got 'yes' from"),
        ("an_answer_that_is_no_text", "data.verifier: expected Verdict.answer to be text or None, got 7 from"),
    ],
)
def test_a_bad_verifier_is_named(function: str, message: str) -> None:
    with pytest.raises(VerifierError) as error:
        judge(f"{USERS}:{function}", Example("?", "7", "mine"), "an answer")
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("on 'an answer' of 'mine'")
    assert "\n" not in str(error.value)


def test_an_answer_is_plain_text_on_its_way_back() -> None:
    class Text(str):
        """Cannot be pickled: nobody finds it by its name."""

    verdict = as_verdict(Verdict(True, 1.0, answer=Text("7")))
    assert type(verdict.answer) is str
    assert verdict.answer == "7"


def test_a_hang_costs_its_reward_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pid_file = tmp_path / "pid"
    example = Example("?", "7", "mine", {"pid_file": str(pid_file)})
    verdicts = judge(f"{USERS}:hangs_on_8", example, "8", "7", "8", timeout=1)
    assert verdicts == [Verdict(False, 0.0, timed_out=True), Verdict(True, 1.0), Verdict(False, 0.0, timed_out=True)]
    (warning,) = caplog.messages
    assert warning.startswith("data.verifier: expected a verdict within 1 s (data.verifier_timeout), got none from ")
    assert "'verifier_functions:hangs_on_8' on '8' of 'mine': it counts as incorrect" in warning
    deadline = time.monotonic() + 10
    while _alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(pid_file.read_text()))


def test_a_worker_that_dies_costs_a_reward(caplog: pytest.LogCaptureFixture) -> None:
    verdicts = judge(f"{USERS}:dies_on_8", Example("?", "7", "mine"), "8", "7")
    assert verdicts == [Verdict(False, 0.0, timed_out=True), Verdict(True, 1.0)]
    assert "got the worker's death from 'verifier_functions:dies_on_8' on '8'" in caplog.text


def test_an_expression_that_math_verify_cannot_finish_is_incorrect() -> None:
    deep = "(" * 5000 + "3" + ")" * 5000
    expressions = ["\\boxed{9^{9^{9^{9}}}}", "\\boxed{(x+y+z+w)^{1000}}", f"\\boxed{{{deep}}}"]
    verdicts = judge("math", Example("?", "3", "math"), *expressions, "3", timeout=10)
    assert [verdict.success for verdict in verdicts] == [False, False, False, True]


AUTO = [
    ("conrl/gsm8k", {}, "72", "\\boxed{72}", "\\boxed{73}"),
    ("openai/gsm8k", {}, "48 / 2 = 24\n#### 72", "\\boxed{72}", "\\boxed{24}"),
    ("conrl/math75", {}, "So $x = \\boxed{\\frac{1}{2}}$.", "\\boxed{0.5}", "\\boxed{2}"),
    ("conrl/amc", {}, "142.0", "\\boxed{142}", "\\boxed{14}"),
    ("conrl/aime", {}, "025", "\\boxed{25}", "\\boxed{250}"),
    ("conrl/theoremqa", {}, "[4, 1, 2, 0]", "\\boxed{[4, 1, 2, 0]}", "\\boxed{[4, 1, 2]}"),
    ("conrl/theoremqa", {}, "True", "\\boxed{\\text{Yes}}", "\\boxed{False}"),
    ("conrl/mmlu2k", {}, "C", "\\boxed{C. five}", "\\boxed{D}"),
    ("conrl/truthfulqa", {}, "J", "\\boxed{J}", "\\boxed{A}"),
    ("conrl/commonsense_qa", {}, "A", "The answer is (A).", "\\boxed{bank}"),
    ("arithmetic:train", {}, "6", "#6", "#5"),
    ("mine", {"verifier": "exact_match"}, "a", "a", "b"),
]


def test_auto_takes_the_verifier_of_each_rows_source() -> None:
    prompt = ({"role": "user", "content": "3+3="},)
    examples = [Example(prompt, answer, source, metadata) for source, metadata, answer, _, _ in AUTO]
    with load_verifier("auto", timeout=30) as verifier:
        right = verifier.verify(examples, [case[3] for case in AUTO])
        wrong = verifier.verify(examples, [case[4] for case in AUTO])
    assert [verdict.success for verdict in right] == [True] * len(AUTO)
    assert [verdict.success for verdict in wrong] == [False] * len(AUTO)


@pytest.mark.parametrize("named", [f"{USERS}:half", "os:system", "auto", 7, ["math"]])
def test_a_row_cannot_name_code(named: object) -> None:
    with pytest.raises(ConfigError, match=r"^data: expected a row's verifier to be one of arithmetic, .*, got "):
        judge("auto", Example("?", "7", "mine", {"verifier": named}), "7")


def test_a_worker_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    monkeypatch.setenv("MY_OTHER", "shared")
    example = Example("?", "", "mine")
    with load_verifier(f"{USERS}:environment", timeout=30, env=["MY_OTHER"]) as pool:
        (verdict,) = pool.verify([example], [""])
    assert verdict.answer is not None
    names = set(verdict.answer.split())
    assert "MY_API_KEY" not in names
    assert {"MY_OTHER", "PATH"} <= names


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with load_verifier(f"{USERS}:eats_on_8", timeout=60, memory=1.0) as pool:
        verdicts = pool.verify([Example("?", "7", "mine")] * 3, ["8", "7", "8"])
    assert [verdict.timed_out for verdict in verdicts] == [True, False, True]
    assert "got no verdict within data.verifier_memory from 'verifier_functions:eats_on_8'" in caplog.text


def test_workers_end_with_the_trainer(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"""
from clipo_train.types import Example
from clipo_train.verifiers import load_verifier
if __name__ == "__main__":
    with load_verifier("{USERS}:hangs", timeout=600) as pool:
        pool.verify([Example("?", "7", "mine", {{"pid_file": {str(pid_file)!r}}})], ["8"])
"""
    (tmp_path / "run.py").write_text(script)
    trainer = subprocess.Popen([sys.executable, tmp_path / "run.py"], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    trainer.kill()
    trainer.wait()
    while _alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(pid_file.read_text()))


def test_auto_refuses_an_unknown_source_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        judge("auto", Example("?", "7", "mine"), "7")
    message = str(error.value)
    assert message.startswith(
        "data.verifier: expected a source that begins with one of arithmetic, reasoning_gym, aime, "
    )
    assert message.endswith("for auto, got 'mine'")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nonsense",
            "expected one of auto, arithmetic, exact_match, multiple_choice, math, reasoning_gym, or module:function, "
            "got 'nonsense'",
        ),
        ("no_such_module:f", "expected module:function, got 'no_such_module:f': No module named 'no_such_module'"),
        (f"{USERS}:f", f"expected module:function, got '{USERS}:f': module '{USERS}' has no attribute 'f'"),
        (f"{USERS}:NOT_A_FUNCTION", f"expected a function, got int for '{USERS}:NOT_A_FUNCTION'"),
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
