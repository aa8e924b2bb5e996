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
) -> None:
    """Refuses a data set that its verifier cannot judge, or whose ground truths it rejects.

    Every row must have a verifier that can judge it. One of our verifiers also judges the ground truths of some rows,
    as a completion would give them; a few may be rejected, which is logged.

    Args:
        examples: The data set.
        pool: Its verifier; its processes are ended.
        source: The data set's name, for messages.
        rows: How many ground truths to judge, evenly spaced.
        max_rejected: Share of them that may be rejected.

    Raises:
        ConfigError: A row has no verifier or cannot be judged; too many ground truths are rejected.
    """
    names = [pool.name_for(example) for example in examples]
    for number, (example, name) in enumerate(zip(examples, names, strict=True)):
        reason = _UNJUDGEABLE[name](example) if name in _UNJUDGEABLE else None
        if reason is not None:
            raise ConfigError(
                f"data: expected rows that the verifier {name!r} can judge, got {reason} in row {number} of {source!r}"
            )
    chosen = range(0, len(examples), -(-len(examples) // rows)) if rows and set(names) <= OURS.keys() else range(0)
    if not chosen:
        return
    with pool:
        verdicts = pool.verify(
            [examples[row] for row in chosen], [answer_as_completion(names[row], examples[row]) for row in chosen]
        )
    rejected = [row for row, verdict in zip(chosen, verdicts, strict=True) if not verdict.success]
    if not rejected:
        return
    count = f"{len(rejected)} of {len(chosen)} ground truths of {source!r} rejected, such as row {rejected[0]}: "
    count += repr(examples[rejected[0]].answer[-60:])
    if len(rejected) > max_rejected * len(chosen):
        raise ConfigError(
            f"data.max_rejected: expected a verifier that accepts the data's own answers, got {count}; see clipo "
            "verify-data"
        )
    _log.warning("data: %s; see clipo verify-data", count)


def _arithmetic(example: Example) -> str | None:
    prompt = example.prompt if isinstance(example.prompt, str) else example.prompt[-1]["content"]
    return None if re.fullmatch(r"\d([+-]\d)*=", prompt) else f"the prompt {prompt[:60]!r}"


def _multiple_choice(example: Example) -> str | None:
    return None if judges.choice(example.answer) else f"the ground truth {example.answer[:60]!r}"


_UNJUDGEABLE: Mapping[str, Callable[[Example], str | None]] = {
    "arithmetic": _arithmetic,
    "math": judges.math_unjudgeable,
    "multiple_choice": _multiple_choice,
}
"""By verifier: what it cannot judge of an example, or None."""
