"""The two values that travel through the trainer: a task to solve, and what a verifier says of an attempt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Message: TypeAlias = Mapping[str, str]
"""One chat message: `{"role": ..., "content": ...}`."""

Column: TypeAlias = Literal["prompt", "answer", "source"]
"""What we read from a row, besides metadata."""


@dataclass(frozen=True)
class Example:
    """One task.

    Attributes:
        prompt: Plain text, or chat messages for the model's chat template.
        answer: The ground truth, in whatever form the verifier of its data set expects; the first of several.
        source: Where it comes from, such as `"gsm8k"`; names the data set in evaluations.
        metadata: Whatever else the verifier needs.
        alternatives: Further ground truths. A completion is judged against one after the other, and is correct if any
            accepts it.
        place: Where the row stands, for messages, such as `line 3 of 'train.jsonl'`.
    """

    prompt: str | tuple[Message, ...]
    answer: str
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    place: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one completion.

    Attributes:
        success: The completion counts as correct: it is a positive of the contrastive loss.
        reward: The outcome reward; need not be binary.
        process: Whether every step of the reasoning is right, or None where a task cannot tell.
        answer: The final answer that the verifier read, for votes among completions; None where it found none. Two
            verdicts are equal whatever was read.
        timed_out: The verifier had not judged this completion when its time was up; it counts as wrong.
    """

    success: bool
    reward: float
    process: bool | None = None
    answer: str | None = field(default=None, compare=False)
    timed_out: bool = False


Verifier: TypeAlias = Callable[[Example, str], Verdict]
"""Judges one completion of one example."""
