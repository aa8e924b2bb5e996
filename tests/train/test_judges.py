"""Judges, called directly: what they read in a completion. Those that may hang are in `test_verifiers`."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipo_train.judges import boxed, boxes, choice, math, math_unjudgeable, multiple_choice
from clipo_train.judges._answers import _spans
from clipo_train.types import Example

from .answers import BOXED, CHOICES, IN_TEXT


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


DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
RULES = DOCS[DOCS.index("## What counts as correct") : DOCS.index("## Check that they fit")]
ROWS = re.findall(r"^\| `(.*?)` \| `(.*)` \| (correct|incorrect) \|$", RULES, flags=re.MULTILINE)
MATH_ROWS = RULES[: RULES.index("| chosen |")].count("\n| `")


@pytest.mark.parametrize(("row", "truth", "completion", "verdict"), [(number, *row) for number, row in enumerate(ROWS)])
def test_the_tables_of_the_docs(row: int, truth: str, completion: str, verdict: str) -> None:
    judge = math if row < MATH_ROWS else multiple_choice
    assert judge(Example("?", truth, "docs"), completion).success is (verdict == "correct")


@pytest.mark.parametrize(("truth", "answer", "right"), BOXED)
def test_answers_in_a_box(truth: str, answer: str, right: bool) -> None:
    assert math(Example("?", truth, "math"), f"So it is \\boxed{{{answer}}}.").success is right


@pytest.mark.parametrize(("truth", "completion", "right"), IN_TEXT)
def test_where_the_final_answer_stands(truth: str, completion: str, right: bool) -> None:
    assert math(Example("?", truth, "math"), completion).success is right


@pytest.mark.parametrize(("completion", "option"), CHOICES)
def test_the_option_that_a_completion_chooses(completion: str, option: str | None) -> None:
    assert choice(completion) == option


@pytest.mark.parametrize("truth", ["", " ", "\\boxed{}", "$$", "####", "."])
def test_a_ground_truth_that_no_completion_can_match(truth: str) -> None:
    assert math_unjudgeable(Example("?", truth, "math")) is not None
    assert not math(Example("?", truth, "math"), f"\\boxed{{{truth}}}").success
    assert math_unjudgeable(Example("?", "\\emptyset", "math")) is None


def _spellings(value: Fraction) -> list[str]:
    above, below = value.numerator, value.denominator
    sign, (whole, rest) = "-" if value < 0 else "", divmod(abs(above), below)
    mixed = [f"{sign}{whole}\\frac{{{rest}}}{{{below}}}", f"{sign}{whole} {rest}/{below}"] if whole and rest else []
    return [f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}", f"{sign}\\dfrac{{{abs(above)}}}{{{below}}}", *mixed]


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
@settings(deadline=None, max_examples=100)
def test_a_rational_is_equal_to_its_spellings_only(value: Fraction, other: Fraction) -> None:
    for truth in _spellings(value):
        for said in _spellings(value):
            assert math(Example("?", truth, "math"), f"\\boxed{{{said}}}").success
        for said in _spellings(other):
            assert math(Example("?", truth, "math"), f"\\boxed{{{said}}}").success is (value == other)


@given(
    st.text("ABCDXIVeast", min_size=2, max_size=8).flatmap(lambda word: st.tuples(st.just(word), st.permutations(word)))
)
@settings(deadline=None)
def test_another_order_of_letters_is_another_word(words: tuple[str, list[str]]) -> None:
    word, other = words[0], "".join(words[1])
    success = math(Example("?", word, "math"), f"\\boxed{{{other}}}").success
    assert success is (word.lower() == other.lower())


@given(st.text(), st.sampled_from(["5", "\\frac{1}{2}", "XIV", "B"]))
@settings(deadline=None)
def test_text_before_the_final_box_changes_nothing(text: str, answer: str) -> None:
    before = text + "\nwhich is wrong. Thus "
    for judge in (math, multiple_choice):
        alone = judge(Example("?", answer, "math"), f"\\boxed{{{answer}}}")
        assert judge(Example("?", answer, "math"), f"{before}\\boxed{{{answer}}}") == alone


PIECES = ["\\boxed{", "\\frac", "{", "}", "(", ")", "^", "_", "5", ",", "x", "\\text{", " ", "%", "!", "$", "<answer>"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@settings(deadline=None)
def test_no_text_makes_a_judge_raise(text: str) -> None:
    for judge in (math, multiple_choice):
        judge(Example("?", "5", "math"), text)
        judge(Example("?", text, "math"), "\\boxed{5}")


@pytest.mark.parametrize("text", ["\\boxed{" * 15000, "{" * 100_000, "\\boxed{" * 7000 + "}" * 7000, "5" * 100_000])
def test_many_boxes_or_braces_are_harmless(text: str) -> None:
    assert len(_spans(text)) <= 1  # nested boxes hold no more text together than the completion has
    assert sum(map(len, boxes(text))) <= len(text)
    assert choice(text) is None
    assert not math(Example("?", "5", "math"), text).success


@pytest.mark.parametrize(
    "said", ["9^{9^{9^9}}", "9**9**9**9", "(x+y+z+w)^{1000}", "99999999!", "(" * 900, "1" * 30_000]
)
def test_what_cannot_be_computed_is_compared_by_its_spelling(said: str) -> None:
    assert not math(Example("?", "5", "math"), f"\\boxed{{{said}}}").success
    assert math(Example("?", said, "math"), f"\\boxed{{{said}}}").success
