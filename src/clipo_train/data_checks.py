"""What can be known of a data set and its verifier before training: that the two fit each other."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

from clipo_train import judges
from clipo_train.errors import ConfigError
from clipo_train.types import Example
from clipo_train.verifier_worker import OURS
from clipo_train.verifiers import VerifierPool
from clipo_train.verify_data import answer_as_completion

_log = logging.getLogger(__name__)


def check_examples(
    examples: Sequence[Example], pool: VerifierPool, *, source: str, rows: int, max_rejected: float
) -> list[int]:
    """Finds the rows of a data set that its verifier can judge, and tries it on their ground truths.

    Rows that it cannot judge, such as those with an empty ground truth, are left out. One of our verifiers also judges
    the ground truths of some rows, as a completion would give them. What is left out or rejected is logged.

    Args:
        examples: The data set.
        pool: Its verifier; its processes are ended.
        source: The data set's name, for messages.
        rows: How many ground truths to judge, evenly spaced.
        max_rejected: Share of the rows that may be left out, and of the ground truths that may be rejected.

    Returns:
        The numbers of the rows that can be judged.

    Raises:
        ConfigError: A row has no verifier; too many rows cannot be judged or are rejected.
    """
    names = [pool.name_for(example) for example in examples]
    reasons = [_UNJUDGEABLE.get(name, _judgeable)(example) for name, example in zip(names, examples, strict=True)]
    left_out = [
        f"{reason} in {example.place or f'row {number} of {source!r}'}"
        for number, (reason, example) in enumerate(zip(reasons, examples, strict=True))
        if reason is not None
    ]
    if left_out:
        count = f"{len(left_out)} of {len(examples)} rows that it cannot judge, such as {left_out[0]}"
        if len(left_out) > max_rejected * len(examples):
            raise ConfigError(f"data: expected rows that the verifier {pool.name!r} can judge, got {count}")
        _log.warning("data: left out for the verifier %r: %s", pool.name, count)
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    tried = [row for row in kept if examples[row].answer and names[row] in OURS] if rows else []
    tried = tried[:: max(1, -(-len(tried) // max(1, rows)))]
    if tried:
        _try_answers([examples[row] for row in tried], [names[row] for row in tried], pool, source, max_rejected)
    return kept


def _try_answers(
    examples: Sequence[Example], names: Sequence[str], pool: VerifierPool, source: str, max_rejected: float
) -> None:
    completions = [answer_as_completion(name, example) for name, example in zip(names, examples, strict=True)]
    with pool:
        verdicts = pool.verify(examples, completions)
    rejected = [example for example, verdict in zip(examples, verdicts, strict=True) if not verdict.success]
    if not rejected:
        return
    first = rejected[0]
    count = f"{len(rejected)} of {len(examples)} ground truths of {source!r} rejected, such as {first.answer[-60:]!r}"
    count += f" in {first.place}" if first.place else ""
    if len(rejected) > max_rejected * len(examples):
        raise ConfigError(
            f"data.max_rejected: expected a verifier that accepts the data's own answers, got {count}; see clipo "
            "verify-data"
        )
    _log.warning("data: %s; see clipo verify-data", count)


def _judgeable(_example: Example) -> None:
    """Any row, as far as is known without its verifier."""


def _arithmetic(example: Example) -> str | None:
    prompt = example.prompt if isinstance(example.prompt, str) else example.prompt[-1]["content"]
    return None if re.fullmatch(r"\d([+-]\d)*=", prompt) else f"the prompt {prompt[:60]!r}"


def _multiple_choice(example: Example) -> str | None:
    return None if judges.choice(example.answer) else f"the ground truth {example.answer[:60]!r}"


def _reasoning_gym(example: Example) -> str | None:
    task, entry = (example.metadata.get(name) for name in ("task", "entry"))
    if isinstance(task, str) and isinstance(entry, Mapping):
        return None
    return "a row that is no task of reasoning-gym's: it lacks task or entry"


_UNJUDGEABLE: Mapping[str, Callable[[Example], str | None]] = {
    "arithmetic": _arithmetic,
    "math": judges.math_unjudgeable,
    "multiple_choice": _multiple_choice,
    "reasoning_gym": _reasoning_gym,
}
"""By verifier: what of an example it cannot judge, or None."""
