"""What many completions of each prompt say: pass@k, maj@k, and how far a mean over prompts can be trusted."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from clipo_train.types import Verdict


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def pass_at_k(samples: int, right: int, k: int) -> float:
    r"""The chance that at least one of k of the samples is right, without bias: $1 - \binom{n-c}{k} / \binom{n}{k}$.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, equation 1, arXiv 2107.03374.
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(verdicts: Sequence[Verdict]) -> float:
    """The chance that the most frequent answer to a prompt is the right one, where ties are broken at random.

    Right completions vote for the truth, however they spell it; wrong ones for the answer the verifier read in them.
    Those in which it read none do not vote.
    """
    votes = Counter(None if verdict.success else verdict.answer for verdict in verdicts if _votes(verdict))
    most = max(votes.values(), default=0)
    leading = [answer for answer, count in votes.items() if count == most]
    return float(None in leading) / max(len(leading), 1)


def interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    r"""The interval of the mean of one value in [0, 1] a prompt, over prompts drawn like these.

    Wilson's interval with the number of prompts divided by $s^2 / (m (1 - m))$, the share of a yes-or-no question's
    variance that the values have. So it is Wilson's own for values of 0 and 1, narrower for means over many samples,
    and neither empty nor outside of [0, 1] at the ends.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927); for means over
    samples, Korn and Graubard, Survey Methodology 24 (1998).
    """
    mean, count = statistics.fmean(values), float(len(values))
    binary, variance = mean * (1 - mean), statistics.pvariance(values)
    if variance > 0:
        count *= binary / variance
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(binary / count + (z / (2 * count)) ** 2)
    return Interval(max(min(centre - half, mean), 0.0), min(max(centre + half, mean), 1.0))


def _votes(verdict: Verdict) -> bool:
    return verdict.success or verdict.answer is not None
