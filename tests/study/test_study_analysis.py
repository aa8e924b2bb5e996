"""The statistics of a study, against exact enumeration, simulation and planted effects."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from clipo_train.study.analysis import analyse, detectable, holm, interval, sign_flip_p
from clipo_train.study.config import load_study
from clipo_train.study.runner import Result

MEASURE = "eval/heldout/accuracy"


def draws(seed: int, count: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, count)


@pytest.mark.parametrize("seed", range(3))
def test_the_p_value_is_that_of_all_sign_flips(seed: int) -> None:
    values = draws(seed, 10, 0.4)
    flipped = [abs(np.mean(values * np.array(signs))) for signs in product((1, -1), repeat=10)]
    assert sign_flip_p(values) == pytest.approx(np.mean(np.array(flipped) >= abs(values.mean()) - 1e-12), abs=0.01)


def test_p_values_of_nothing_are_uniform_and_of_equal_arms_1() -> None:
    found = [sign_flip_p(draws(seed, 8)) < 0.1 for seed in range(200)]
    assert 0.03 < np.mean(found) < 0.18
    assert sign_flip_p(np.zeros(8)) == 1.0


def test_holm_is_the_textbook_s() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    covered = [(found := interval(draws(seed, 20))).low < 0 < found.high for seed in range(200)]
    assert 0.88 < np.mean(covered) < 0.99
    assert interval(np.array([0.5, 0.5])) == (0.5, 0.5, 0.5)


def test_what_is_detectable_is_detected_four_times_in_five() -> None:
    effect = detectable(1.0, 20)
    assert effect == pytest.approx(0.66, abs=0.01)
    found = [sign_flip_p(draws(seed, 20, effect)) < 0.05 for seed in range(200)]
    assert 0.7 < np.mean(found) < 0.9
    assert math.isnan(detectable(1.0, 1))


def results(arm: str, values: dict[int, float]) -> list[Result]:
    return [Result(arm, seed, "x", 1.0, {MEASURE: value}) for seed, value in values.items()]


def test_arms_are_compared_seed_by_seed(study_file: Callable[..., Path]) -> None:
    study = load_study(study_file(primary=[MEASURE], secondary=[]))
    base = {seed: float(value) for seed, value in enumerate(draws(0, 20))}  # seeds differ far more than arms
    better = {seed: value + 0.01 + 0.001 * (seed % 3) for seed, value in base.items()}
    del better[7]
    analysis = analyse(study, results("plain", base) + results("clipo", better))
    (row,) = analysis.comparisons
    assert (row.arm, row.against, row.seeds, analysis.tests) == ("clipo", "plain", 19, 1)
    assert row.difference.mean == pytest.approx(np.mean([better[seed] - base[seed] for seed in better]))
    assert row.found
    assert row.difference.low > 0.01
    assert analysis.means["plain"][MEASURE].mean == pytest.approx(np.mean([*base.values()]))


def test_only_primary_measures_are_tested_and_all_tests_are_corrected_for(study_file: Callable[..., Path]) -> None:
    arms = {"plain": {"what": ""}} | {f"arm{i}": {"what": "", "against": ["plain"]} for i in range(40)}
    study = load_study(study_file(primary=[MEASURE], secondary=["policy/entropy"], arms=arms))
    rows = results("plain", dict.fromkeys(range(20), 0.0))
    for place in range(40):
        rows += results(f"arm{place}", dict(enumerate(draws(place, 20))))
    rows = [Result(row.arm, row.seed, "", 1.0, row.measures | {"policy/entropy": 1.0}) for row in rows]
    analysis = analyse(study, rows)
    tested = [row for row in analysis.comparisons if row.measure == MEASURE]
    assert analysis.tests == len(tested) == 40
    assert any(row.p < 0.05 for row in tested)  # by chance alone
    assert not any(row.found for row in analysis.comparisons)
    assert all(math.isnan(row.p) for row in analysis.comparisons if row.measure != MEASURE)
