"""Tasks of reasoning-gym, by their own scorers."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from clipo_train.judges._answers import WRAPPED, boxed
from clipo_train.judges._safe_answers import may_be_scored
from clipo_train.types import Example, Verdict

_MARKED = re.compile(r"(?i)\banswer\b(?:\s+is\b|[*_ ]*:)[*: ]*")
_FENCED = re.compile(r"```\w*\n(.*?)\n?```", flags=re.DOTALL)
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "decimal_arithmetic": ("max_num_decimal_places",),
    "polynomial_equations": ("penalty_missing_factor", "penalty_extra_factor", "exp_distance_factor"),
    "puzzle24": ("min_value", "max_value"),
    "time_intervals": ("max_time_difference_seconds", "max_date_difference_days"),
    "word_ladder": ("min_word_length", "max_word_length"),
}
"""The options that scorers read, all of them numbers."""


def reasoning_gym(example: Example, completion: str) -> Verdict:
    """Accepts the task's own answer and what its scorer gives 1; the reward is its score.

    Nothing in the completion or the entry is evaluated unchecked. An answer that does not pass the check for its task,
    or on which the scorer raises, gets 0. The answer is scored as it stands and without Markdown, TeX or a final full
    stop; the better score counts.
    """
    task, entry = str(example.metadata["task"]), example.metadata["entry"]
    said = final_answer(completion, example.answer)
    given = example.metadata.get("options") or {}
    options = tuple((name, given[name]) for name in _OPTIONS.get(task, ()) if isinstance(given.get(name), int | float))
    reward = max(_score(task, options, entry, text) for text in _spellings(said))
    return Verdict(reward == 1.0, reward, answer=said)


def final_answer(completion: str, truth: str) -> str:
    r"""Text that a completion gives as its answer.

    It stands in the last `<answer>` tag, else in the last `\boxed{}`, else after the last "answer is" or "answer:",
    else in the fenced block that ends the completion, else in the last lines. Text after a mark, and last lines, are as
    many lines as the task's own answer has, so a completion cannot offer several.
    """
    completion = completion.replace("\r\n", "\n")
    before, closed, _ = completion.rpartition("</answer>")
    _, opened, tagged = before.rpartition("<answer>")
    if opened and closed:
        return _unfenced(tagged)
    box = boxed(completion)
    if box is not None:
        return _unfenced(box)
    count = len(_lines(truth))
    *_, mark = (None, *_MARKED.finditer(completion))
    if mark is not None and completion[mark.end() :].strip():
        after = completion[mark.end() :].strip()
        fenced = _FENCED.match(after)
        return fenced[1].strip() if fenced else "\n".join(_lines(after)[:count])
    fences = _FENCED.findall(completion)
    if fences and completion.rstrip().endswith("```"):
        return str(fences[-1]).strip()
    return "\n".join(_lines(completion)[-count:]).strip()


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]


def _unfenced(text: str) -> str:
    fenced = _FENCED.fullmatch(text.strip())
    return (fenced[1] if fenced else text).strip()


def _spellings(text: str) -> set[str]:
    """An answer as it stands, and without Markdown, TeX's dollars and fonts, and a final full stop."""
    bare = [WRAPPED.sub(r"\1", form).strip("*`$ \n") for form in (text, text.removesuffix("."))]
    return {text, *bare, bare[0].removesuffix(".")}


def _score(task: str, options: tuple[tuple[str, float], ...], entry: Any, answer: str) -> float:
    try:
        truth = entry["answer"]
        if truth is not None and _lines(answer) == _lines(str(truth)):
            return 1.0
        if not truth and truth is not None:  # to scorers that read numbers, text without any is empty too
            return float(answer in ('""', "''"))
        if not answer or not may_be_scored(task, answer, entry):
            return 0.0
        score = float(_scorer(task, options)(answer, entry))
    except (Exception, SystemExit):  # a scorer meets whatever a policy writes, and not all of them are ready for it
        return 0.0
    return score if 0 <= score <= 1 else 0.0


@functools.cache
def _scorer(task: str, options: tuple[tuple[str, float], ...]) -> Callable[[str, Any], float]:
    import reasoning_gym

    score: Callable[[str, Any], float] = reasoning_gym.create_dataset(task, **dict(options)).score_answer
    return score
