"""The measures that a study may name: metrics of the trainer, as the glossary lists them."""

import re
from collections.abc import Sequence

from clipo_train.config.unknown import most_similar
from clipo_train.errors import ConfigError

TRAINING = (
    *(f"rollout/{name}" for name in ("accuracy", "process_accuracy", "process_wrong_among_right", "response_length")),
    *(f"rollout/{name}" for name in ("truncated", "informative", "sampling_rounds", "sampled_accuracy")),
    *(f"rollout/{name}" for name in ("engine_logprob_gap", "engine_logprob_gap_max", "verifier_timeouts")),
    *(f"reward/{name}" for name in ("outcome", "contrastive", "overlong", "kl", "total")),
    "groups/degenerate",
    *(f"advantage/{name}" for name in ("nonzero", "negative_among_right", "process_gap")),
    *(f"policy/{name}" for name in ("loss", "entropy", "clip_fraction", "approx_kl", "grad_norm", "skipped_updates")),
    "policy/learning_rate",
    *(f"contrastive/{name}" for name in ("loss", "anchor_fraction", "clamp_fraction", "similarity_positive")),
    *(f"contrastive/{name}" for name in ("similarity_negative", "process_gap", "process_auc", "noise_share")),
    "nonfinite_metrics",
    *(f"time/{name}" for name in ("rollout", "verify", "score", "contrastive", "update", "step")),
)
"""Metrics of training."""

EVALUATION = (
    "accuracy",
    "pass_at_<k>",
    "maj_at_<n>",
    "process_pass_at_<k>",
    "process_accuracy",
    "process_wrong_among_right",
    "response_length",
    "truncated",
    "verifier_timeouts",
)
"""Metrics of an evaluation set, after `eval/<set>/`; those with an interval have `_low` and `_high` too."""


def check_measures(measures: Sequence[str], sets: Sequence[str]) -> None:
    """Refuses measures that no run can have.

    Args:
        measures: Those of a study.
        sets: Names of the evaluation sets of its runs.

    Raises:
        ConfigError: A measure is not a metric, or is one of an evaluation set that there is not.
    """
    for measure in measures:
        part, _, metric = measure.removeprefix("eval/").rpartition("/")
        if measure.startswith("eval/") and part not in sets:
            raise ConfigError(f"primary, secondary: expected sets of base.evaluation.sets, got {measure!r}")
        known = EVALUATION if measure.startswith("eval/") else TRAINING
        name = metric if measure.startswith("eval/") else measure
        if _listed(name) not in known:
            meant = most_similar(name, known)
            place = measure.removesuffix(name)
            raise ConfigError(
                f"primary, secondary: expected names of metrics, got {measure!r}"
                + (f"; did you mean {place}{meant}?" if meant else "")
            )


def _listed(metric: str) -> str:
    """How a metric, or the one whose interval it is an end of, is listed."""
    mean = metric.removesuffix("_low").removesuffix("_high")
    return re.sub(r"(?<=pass_at_)\d+$", "<k>", re.sub(r"(?<=maj_at_)\d+$", "<n>", mean))
