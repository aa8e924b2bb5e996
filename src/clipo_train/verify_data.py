"""Whether a verifier and a data set fit: it must accept every ground truth, and reject another row's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from clipo_train.judges import boxes
from clipo_train.terminal import plain
from clipo_train.types import Example
from clipo_train.verifiers import VerifierPool

_EXPONENT = re.compile(r"(-?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})")
NO_ANSWER = "I do not know."


@dataclass(frozen=True)
class Check:
    """What a verifier says of one data set.

    Attributes:
        source: The data set.
        verifiers: Names of those that judged.
        rows: Tasks.
        exceptions: For `truth`, `other` and `none`, the completions judged wrongly, each with its row number and task.
        timeouts: Completions that were not judged in time.
    """

    source: str
    verifiers: tuple[str, ...]
    rows: int
    exceptions: dict[str, list[tuple[int, Example, str]]] = field(default_factory=dict)
    timeouts: int = 0


def check_data(source: str, examples: Sequence[Example], pool: VerifierPool) -> Check:
    r"""Lets the verifier judge, of every row, three completions: its own answer, another row's, and none.

    An answer is given as a model would, in `\boxed{}`; but as it is where it is a solution with several boxes, and to
    `exact_match`, reasoning-gym and the test bed. The other row is the next one with another answer.

    Raises:
        VerifierError: The verifier raised, or returned no verdict.
    """
    names = [pool.name_for(example) for example in examples]
    truths = [_answers(example) for example in examples]
    rows = range(len(examples))
    tries = {
        "truth": (True, [(row, _completion(names[row], truth)) for row in rows for truth in truths[row]]),
        "other": (False, [(row, _completion(names[row], _other(truths, row))) for row in rows]),
        "none": (False, [(row, NO_ANSWER) for row in rows]),
    }
    exceptions: dict[str, list[tuple[int, Example, str]]] = {}
    timeouts = 0
    for check, (wanted, cases) in tries.items():
        verdicts = pool.verify([examples[row] for row, _ in cases], [completion for _, completion in cases])
        timeouts += sum(verdict.timed_out for verdict in verdicts)
        exceptions[check] = [
            (row, examples[row], completion)
            for (row, completion), verdict in zip(cases, verdicts, strict=True)
            if verdict.success != wanted
        ]
    return Check(source, tuple(dict.fromkeys(names)), len(examples), exceptions, timeouts)


def checks_table(checks: Sequence[Check]) -> Table:
    """A row for each data set: how many of its rows passed."""
    table = Table(title="rows whose own answer is accepted (truth), and another or none rejected")
    for column in ("data", "verifier", "rows"):
        table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for column in checks[0].exceptions:
        table.add_column(column, justify="right")
    table.add_column("late", justify="right")
    for check in checks:
        passed = [str(check.rows - len({row for row, *_ in rows})) for rows in check.exceptions.values()]
        short = str(Path(*Path(check.source).parts[-2:]).with_suffix(""))
        table.add_row(plain(short), plain(", ".join(check.verifiers)), str(check.rows), *passed, str(check.timeouts))
    return table


def answer_as_completion(verifier: str, example: Example) -> str:
    """The ground truth of an example, said as a model would to a verifier of ours."""
    return _completion(verifier, example.answer)


def _completion(verifier: str, answer: str) -> str:
    if verifier in ("arithmetic", "exact_match", "reasoning_gym"):
        return f"#{answer}" if verifier == "arithmetic" else answer
    found = list(dict.fromkeys(boxes(answer))) or [answer.rpartition("####")[2].strip()]
    if verifier == "math" and len(found) == 1 and (number := _EXPONENT.fullmatch(found[0])):
        found = [f"{number[1]} \\times 10^{{{int(number[2])}}}"]  # no completion says 1e-05
    if len(found) > 1:  # parts of the answer, or what is boxed on the way to it: math-verify tells which
        return answer
    return f"The answer is \\boxed{{{found[0]}}}."


def _answers(example: Example) -> tuple[str, ...]:
    return (example.answer, *example.alternatives)


def _other(truths: Sequence[tuple[str, ...]], row: int) -> str:
    """The next row's answer that is none of this row's; where there is none, one that nothing has."""
    own = {_completion("", truth) for truth in truths[row]}
    for step in range(1, len(truths)):
        other = truths[(row + step) % len(truths)][0]
        if _completion("", other) not in own:
            return other
    return "-123456789"
