r"""Mathematics: two expressions are equal if math-verify finds them so."""

import functools
import re

from clipo_train.judges._answers import WRAPPED, boxed, boxes, braced
from clipo_train.types import Example, Verdict

_PERCENT = r"\s*\\?%"
_WORDS = {"yes": "true", "no": "false"}


def math(example: Example, completion: str) -> Verdict:
    r"""Right is what math-verify finds equal to the answer, or what is spelled like it in a box.

    The answer may be bare, a solution with the answer in `\boxed{}`, or one of GSM8K's own, with the answer after
    `####`. The spelling is for answers that are no mathematics, such as a name or `not exist`; there `yes` and `no` are
    the same as `True` and `False`.
    """
    import math_verify

    truth, completion = _truth(example.answer), braced(completion)
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


def _truth(answer: str) -> str:
    """A ground truth with its answer in a box."""
    answer = braced(answer)
    return answer if boxed(answer) is not None else f"\\boxed{{{answer.rpartition('####')[2].strip()}}}"


def _spelling(text: str) -> str:
    """Text without what is only for the eye."""
    text = re.sub(r"\\(?:left|right|[!,;: ])|[$\s]", "", WRAPPED.sub(r"\1", text)).lower().rstrip(".")
    return _WORDS.get(text, text)
