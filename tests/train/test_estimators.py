"""pass@k, maj@k and intervals, against enumeration and published values."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipo_train.estimators import interval, majority, pass_at_k
from clipo_train.types import Verdict


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    subsets = list(itertools.combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def votes(*answers: str | None, truth: str = "t") -> list[Verdict]:
    return [Verdict(answer == truth, float(answer == truth), answer=answer) for answer in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("t", "t", "a"), 1.0),
        (("t", "a", "a"), 0.0),
        (("t", "a"), 0.5),
        (("t", "a", "b"), 1 / 3),
        (("t", None, None), 1.0),
        ((None, None), 0.0),
        (("a", "b", "t", "t", "c"), 1.0),
    ],
)
def test_the_majority_with_ties_at_random(answers: tuple[str | None, ...], expected: float) -> None:
    assert majority(votes(*answers)) == pytest.approx(expected)


def test_right_completions_vote_together_however_they_are_spelled() -> None:
    spelled = [Verdict(True, 1.0, answer="1/2"), Verdict(True, 1.0, answer="0.5"), Verdict(True, 1.0)]
    assert majority(spelled + votes("a", "a")) == 1.0


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(right: int, count: int, low: float, high: float) -> None:
    assert interval([1.0] * right + [0.0] * (count - right)) == pytest.approx((low, high), abs=5e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_is_around_the_mean_within_zero_and_one(values: list[float]) -> None:
    low, high = interval(values)
    mean = sum(values) / len(values)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = random.Random(0)
    truth, runs, hits = 0.5 / 1.5, 1000, 0
    for _ in range(runs):  # prompts of beta-distributed difficulty, 8 samples each
        chances = [rng.betavariate(0.5, 1.0) for _ in range(60)]
        low, high = interval([sum(rng.random() < chance for _ in range(8)) / 8 for chance in chances])
        hits += low <= truth <= high
    assert 0.93 <= hits / runs <= 0.97
