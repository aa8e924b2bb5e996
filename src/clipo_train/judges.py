r"""Judges: functions of (example, completion) that say whether the completion is right.

`clipo_train.verifiers` runs them. They are thin: whether two expressions are equal is math-verify's business, and what
a task of reasoning-gym accepts is reasoning-gym's. Ours is only where the final answer stands in a completion.
"""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from clipo_train.types import Example, Verdict

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\s*\{([^{}]*)\}")
_PERCENT = r"\s*\\?%"
_WORDS = {"yes": "true", "no": "false"}


def exact_match(example: Example, completion: str) -> Verdict:
    """Right is the answer itself, white space around it aside."""
    said = completion.strip()
    success = said == example.answer.strip()
    return Verdict(success, float(success), answer=said)


def math(example: Example, completion: str) -> Verdict:
    r"""Right is what math-verify finds equal to the answer, or what is spelled like it in a box.

    The answer may be bare, a solution with the answer in `\boxed{}`, or one of GSM8K's own, with the answer after
    `####`. The spelling is for answers that are no mathematics, such as a name or `not exist`; there `yes` and `no` are
    the same as `True` and `False`.
    """
    import math_verify

    truth, completion = _truth(example.answer), _braced(completion)
    said = boxed(completion)
    if said is not None and {_spelling(said)} == {_spelling(box) for box in boxes(truth)}:
        return Verdict(True, 1.0, answer=said)
    # math-verify's own limits are off: whoever runs this bounds its time, and counts what was out of time.
    parse = functools.partial(math_verify.parse, parsing_timeout=None)
    verify = functools.partial(math_verify.verify, timeout_seconds=None)
    gold, parsed = parse(truth), parse(completion)
    success = verify(gold, parsed)
    if not success and said is not None and "%" in said:  # asked for a percentage, one may say 20 or 20 %
        success = verify(gold, parse(f"\\boxed{{{re.sub(_PERCENT, '', said)}}}"))
    return Verdict(success, float(success), answer=str(parsed[0]) if parsed else said)


def multiple_choice(example: Example, completion: str) -> Verdict:
    r"""Right is the answer's letter, in the last `\boxed{}`, after `answer is` or `answer:`, or alone.

    The option's text may follow the letter, as in `\boxed{B. four}`. Two letters are no choice.
    """
    truth, said = _choice(example.answer), _choice(completion)
    success = said is not None and said == truth
    return Verdict(success, float(success), answer=said)


def reasoning_gym(example: Example, completion: str) -> Verdict:
    """Right is what the task's own scorer gives 1; the reward is its score. What it cannot read gets 0."""
    task, options, entry = (example.metadata[name] for name in ("task", "options", "entry"))
    score, said = _scorer(task, json.dumps(options)), _final_answer(completion)
    try:
        reward = float(score(said, entry))
    except Exception:  # a scorer meets whatever a policy writes, and not all of them are ready for it
        reward = 0.0
    return Verdict(reward == 1.0, reward, answer=said)


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` that is closed."""
    return next(reversed(boxes(text)), None)


def boxes(text: str) -> list[str]:
    r"""What stands in each `\boxed{}` that is closed."""
    found = []
    for opening in re.finditer(r"\\f?box(?:ed)?\s*\{", text):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                found.append(text[opening.end() : place])
                break
    return found


def _braced(text: str) -> str:
    r"""Text with TeX's short `\boxed 9` written out, which neither we nor math-verify would find."""
    return re.sub(r"(\\boxed)\s+(\w)", r"\1{\2}", text)


def _truth(answer: str) -> str:
    """A ground truth with its answer in a box."""
    answer = _braced(answer)
    return answer if boxed(answer) is not None else f"\\boxed{{{answer.rpartition('####')[2].strip()}}}"


def _spelling(text: str) -> str:
    """Text without what is only for the eye."""
    text = re.sub(r"\\(?:left|right|[!,;: ])|[$\s]", "", _WRAPPED.sub(r"\1", text)).lower().rstrip(".")
    return _WORDS.get(text, text)


def _choice(text: str) -> str | None:
    """The letter that a text chooses."""
    said = boxed(text)
    if said is None:
        announced = re.findall(r"answer\s*(?:is|:)\W*([A-Z])(?=\W*(?:$|[.,;)*\n]))", text, flags=re.IGNORECASE)
        said = announced[-1] if announced else text
    while (inner := _WRAPPED.sub(r"\1", said)) != said:
        said = inner
    letter = re.fullmatch(r"\(?([A-Za-z])(?:[.:)].*)?", said.strip(" $*\n\t"), flags=re.DOTALL)
    return letter[1].upper() if letter else None


def _final_answer(completion: str) -> str:
    """What stands in the last <answer> tag; else the last number; else the last line."""
    tagged = re.findall(r"<answer>(.*?)</answer>", completion, flags=re.DOTALL)
    if tagged:
        return str(tagged[-1]).strip()
    numbers = re.findall(r"-?\d+(?:\.\d+)?", completion)
    return str(numbers[-1]) if numbers else (completion.strip().splitlines() or [""])[-1]


@functools.cache
def _scorer(task: str, options: str) -> Callable[[str, Any], float]:
    import reasoning_gym

    score: Callable[[str, Any], float] = reasoning_gym.create_dataset(task, **json.loads(options)).score_answer
    return score
