"""What a study's results say: paired differences between arms, their intervals, tests, and what could be detected."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clipo_train.study.config import START, StudyConfig
from clipo_train.study.runner import Result

Numbers = NDArray[np.float64]

_RESAMPLES = 9_999
_PERMUTATIONS = 19_999
_LEVEL = 0.05
_POWER = 0.8


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """An arm less another, in one measure, seed by seed.

    Attributes:
        arm: The arm.
        against: The other.
        measure: What is compared.
        difference: Its mean over seeds, with a bootstrap interval.
        deviation: Standard deviation of the differences.
        seeds: How many.
        p: Of the sign-flip test, by itself; NaN for a secondary measure.
        p_holm: Corrected for all tests of the study.
        detectable: The difference that so many seeds would find four times in five, tested at .05 by itself.
    """

    arm: str
    against: str
    measure: str
    difference: Interval
    deviation: float
    seeds: int
    p: float
    p_holm: float
    detectable: float

    @property
    def found(self) -> bool:
        """True if the difference is there after correction."""
        return self.p_holm < _LEVEL


class Analysis(NamedTuple):
    """Means of all arms, and all comparisons.

    Attributes:
        means: Arm -> measure -> mean over seeds and its interval.
        comparisons: In the order of the study's arms, measures of one pair together.
        tests: How many tests the correction is for.
    """

    means: dict[str, dict[str, Interval]]
    comparisons: list[Comparison]
    tests: int


def analyse(study: StudyConfig, results: Sequence[Result]) -> Analysis:
    """Means and comparisons, of the seeds that there are results of.

    A comparison takes the seeds that both arms have, and tests whether their differences are symmetric about 0 by
    flipping their signs. The p-values of all primary measures and pairs are corrected together by Holm's method, which
    bounds the chance of any false finding without assuming that tests are independent.
    """
    values = _values(results)
    means = {
        arm: {
            name: interval(np.array([*values[arm][name].values()])) for name in study.measures if values[arm].get(name)
        }
        for arm in (START, *study.arms)
        if arm in values
    }
    comparisons = [
        _compare(arm, other, name, values, test=name in study.primary)
        for arm, settings in study.arms.items()
        for other in settings.against
        for name in study.measures
        if _common(values, arm, other, name)
    ]
    tested = [place for place, comparison in enumerate(comparisons) if not np.isnan(comparison.p)]
    for place, p in zip(tested, holm([comparisons[place].p for place in tested]), strict=True):
        comparisons[place] = comparisons[place]._replace(p_holm=p)
    return Analysis(means, comparisons, len(tested))


def interval(values: Numbers) -> Interval:
    """The mean and its bias-corrected and accelerated 95 % bootstrap interval; of equal values they are one."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    found = stats.bootstrap((values,), np.mean, n_resamples=_RESAMPLES, rng=np.random.default_rng(0))
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def sign_flip_p(differences: Numbers) -> float:
    """Two-sided p-value of a mean of differences that are symmetric about 0: how often flipped signs reach as far."""
    if not differences.any():
        return 1.0
    found = stats.permutation_test(
        (differences,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the same order; S. Holm (1979)."""
    count, corrected, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def detectable(deviation: float, seeds: int, *, level: float = _LEVEL, power: float = _POWER) -> float:
    """The mean difference that a two-sided paired t-test at `level` finds with probability `power`."""
    if seeds < 2:
        return float("nan")
    freedom = seeds - 1
    return float((stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * deviation / seeds**0.5)


def _values(results: Sequence[Result]) -> dict[str, dict[str, dict[int, float]]]:
    """Arm -> measure -> seed -> value."""
    names = {name for result in results for name in result.measures}
    values: dict[str, dict[str, dict[int, float]]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        of_arm = values.setdefault(result.arm, {name: {} for name in names})
        for name, value in result.measures.items():
            of_arm[name][result.seed] = value
    return values


def _common(values: dict[str, dict[str, dict[int, float]]], arm: str, other: str, name: str) -> list[int]:
    """The seeds that both arms have the measure of."""
    if arm not in values or other not in values:
        return []
    ours, theirs = values[arm].get(name, {}), values[other].get(name, {})
    return [seed for seed in ours if seed in theirs]


def _compare(
    arm: str, other: str, name: str, values: dict[str, dict[str, dict[int, float]]], *, test: bool
) -> Comparison:
    seeds = _common(values, arm, other, name)
    differences = np.array([values[arm][name][seed] - values[other][name][seed] for seed in seeds])
    deviation = float(differences.std(ddof=1)) if len(seeds) > 1 else float("nan")
    p = sign_flip_p(differences) if test and len(seeds) > 1 else float("nan")
    return Comparison(
        arm,
        other,
        name,
        interval(differences),
        deviation,
        len(seeds),
        p,
        float("nan"),
        detectable(deviation, len(seeds)),
    )
