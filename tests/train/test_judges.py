"""Judges, called directly: what they read in a completion. Those that may hang are in `test_verifiers`."""

import pytest

from clipo_train.judges import boxed, math, multiple_choice
from clipo_train.types import Example


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{1} and \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed {17}", "17"),
        ("\\fbox{3}", "3"),
        ("\\boxed{1} or \\boxed{2", "1"),
        ("\\boxed{", None),
        ("17", None),
    ],
)
def test_the_last_closed_box(text: str, inside: str | None) -> None:
    assert boxed(text) == inside


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("\\boxed{B}", "B"),
        ("First A. No: \\boxed{B}", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("\\boxed{B. a bank}", "B"),
        ("\\boxed{(B) a bank}", "B"),
        ("\\boxed{b}", "B"),
        ("The answer is B.", "B"),
        ("Answer: **B**", "B"),
        ("the answer is (B), a bank", "B"),
        ("B", "B"),
        ("(B)", "B"),
        ("\\boxed{A, B}", None),
        ("\\boxed{AB}", None),
        ("\\boxed{bank}", None),
        ("The answer is a bank.", None),
        ("I think that B is right", None),
        ("A bank.", None),
        ("", None),
    ],
)
def test_the_letter_of_a_choice(completion: str, letter: str | None) -> None:
    verdict = multiple_choice(Example("?", "B", "mmlu"), completion)
    assert verdict.answer == letter
    assert verdict.success == (letter == "B")
    assert verdict.reward == float(verdict.success)


@pytest.mark.parametrize(
    ("truth", "completion", "right"),
    [
        ("not exist", "\\boxed{\\text{Not exist}}", True),
        ("A, D, F, G", "\\boxed{A,D,F,G}", True),
        ("A, D, F, G", "\\boxed{A, D, F}", False),
        ("\\infty", "\\boxed{+\\infty}", True),
        ("\\infty", "\\boxed{-\\infty}", False),
        ("We get $x^2 = \\boxed 9$.", "\\boxed{9}", True),
        ("Either $\\boxed{2}$ or $\\boxed{4}$.", "\\boxed{2, 4}", True),
        ("Either $\\boxed{2}$ or $\\boxed{4}$.", "\\boxed{4}", False),
        ("\\frac{1}{23}", "\\boxed{\\frac{12}{3}}", False),
        ("32.5", "\\boxed{32.5}", True),
        ("32.5", "\\boxed{32.5\\%}", True),
        ("20.0", "\\boxed{20\\%}", True),
        ("0.2", "\\boxed{20\\%}", True),
        ("20", "\\boxed{0.2\\%}", False),
        ("70000", "\\boxed{\\$70,000}", True),
        ("18", "\\boxed{18\\text{ dollars}}", True),
        ("18", "\\boxed{\\$18.00}", True),
        ("False", "\\boxed{No}", True),
        ("(b)", "\\boxed{b}", True),
    ],
)
def test_answers_that_are_words_lists_or_solutions(truth: str, completion: str, right: bool) -> None:
    assert math(Example("?", truth, "math"), completion).success is right


def test_the_answer_that_math_read_is_for_votes() -> None:
    answers = [
        math(Example("?", "3", "math"), text).answer for text in ("\\boxed{\\frac12}", "it is $\\frac{2}{4}$", "?")
    ]
    assert answers == ["1/2", "1/2", None]
