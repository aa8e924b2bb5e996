r"""Mathematics: math-verify compares what is algebra; exact numbers, units, bases and words are compared before it."""

import dataclasses
import functools
import re
from typing import Any

from clipo_train.judges import _answers
from clipo_train.judges._notation import is_letters, plain, spelling, words
from clipo_train.judges._quantities import Quantity, based, quantity, rational, same_number
from clipo_train.types import Example, Verdict

_TAIL = 1000
"""Characters at the end of a completion without a box in which an answer is looked for."""
_LARGEST_EXPONENT = 10_000
_LARGEST_POWER_OF_SUM = 30
_DEEPEST = 25
_CLOSE = 1e-6


def math(example: Example, completion: str) -> Verdict:
    r"""Compares the final answer of a completion with the ground truth; docs/data.md states the rules.

    The ground truth may be bare, a solution with the answer in `\boxed{}`, or one of GSM8K's, with it after `####`. The
    completion's answer is in its last box or `<answer>` tag, else after `answer is`, else the last that math-verify
    finds.
    """
    truth, said = plain(_truth(example.answer)), _said(completion)
    if not truth or not said:
        return Verdict(False, 0.0, answer=said or None)
    success = _equal(truth, said)
    return Verdict(success, float(success), answer=_vote(said))


def unjudgeable(example: Example) -> str | None:
    """Returns what is wrong with a ground truth that no completion can match, such as an empty one, or None."""
    if re.search(r"\w|\\[a-zA-Z]", plain(_truth(example.answer))) is None:
        return f"the ground truth {example.answer[:60]!r}"
    return None


def _truth(answer: str) -> str:
    answer = _answers.braced(answer)
    boxed = _answers.final_boxes(answer)
    return answer.rpartition("####")[2] if boxed is None else boxed


def _said(completion: str) -> str | None:
    """Returns the final answer of a completion, plain."""
    completion = _answers.braced(_answers.tagged(completion))
    boxed = _answers.final_boxes(completion)
    if boxed is not None:
        return plain(boxed)
    tail = completion[-_TAIL:].strip()
    answer = _answers.announced(tail)
    if answer is None and len(tail) <= 60 and "$" not in tail:
        answer = tail
    if answer is not None and (said := plain(answer)) and (quantity(said).unit or rational(said) is not None):
        return said
    parsed = [] if _too_large(tail) else _parse(tail)
    if parsed:
        return plain(str(parsed[-1]))
    said = plain((answer or "").strip("* "))
    return said if re.search(r"\w|\\[a-zA-Z]", said) else None


def _equal(truth: str, said: str) -> bool:
    """Whether two plain answers are equal."""
    if spelling(truth) == spelling(said):
        return True
    if max(len(truth), len(said)) > _answers.LONGEST:
        return False
    if is_letters(truth) or is_letters(said):
        return _items(truth) == _items(said)
    wanted, got = quantity(truth), quantity(said)
    if wanted.unit and got.unit and wanted.unit != got.unit:
        percents = {wanted.unit, got.unit} & {"percent"}
        if not percents or {wanted.unit, got.unit} - {"percent", ""}:
            return False
    if wanted.unit != got.unit and "percent" in (wanted.unit, got.unit):
        return _same_percentage(wanted, got)
    return _same(wanted, got)


def _same_percentage(wanted: Quantity, got: Quantity) -> bool:
    """Whether a percentage is the same number as one without its sign: 20 % is 20 and 0.2."""
    if _same(wanted, got):
        return True
    wanted, got = (
        Quantity(f"({item.text})/100", scale=item.scale) if item.unit == "percent" else item for item in (wanted, got)
    )
    return _same(wanted, got)


def _same(wanted: Quantity, got: Quantity) -> bool:
    """Whether two answers without their units are equal."""
    (truth, base), (said, other_base) = based(wanted.text), based(got.text)
    if base or other_base:
        return (truth, base) == (said, other_base)
    numbers = [_number(item) for item in (wanted, got)]
    if numbers[0] is not None and numbers[1] is not None:
        return same_number(numbers[0], numbers[1], (truth, said))
    if (
        wanted.scale != got.scale
        or words(truth) != words(said)
        or _are_set_and_tuple(truth, said)
        or _has_dots(truth + said)
    ):
        return False
    return spelling(truth) == spelling(said) or _verify(truth, said)


def _number(item: Quantity) -> Any:
    percentage = re.fullmatch(r"\((.*)\)/100", item.text)
    value = rational(percentage[1] if percentage else item.text)
    return None if value is None else value * item.scale / (100 if percentage else 1)


def _items(text: str) -> list[str]:
    """Returns the parts of a list in words; single letters are options, whose order is of no matter."""
    text = re.sub(r"\\cdot(?![a-zA-Z])|\*", "", text)
    parts = [spelling(part) for part in re.split(r"[,;]|\band\b|\bor\b", text)]
    parts = [part for part in parts if part]
    return sorted(parts) if all(len(part.strip("()")) == 1 for part in parts) else parts


def _are_set_and_tuple(truth: str, said: str) -> bool:
    kinds = {"set" if text.startswith("\\{") else "tuple" if text[0] in "([" else "" for text in (truth, said) if text}
    return kinds == {"set", "tuple"} and "\\cup" not in truth + said


def _has_dots(text: str) -> bool:
    """Whether a list or sum goes on by dots, of which math-verify reads the beginning only."""
    return re.search(r"\\[lc]?dots|\.\.\.", text) is not None


def _verify(truth: str, said: str) -> bool:
    """Whether math-verify finds two expressions equal, and numbers among them not merely both near zero."""
    import math_verify

    if _too_large(truth) or _too_large(said):
        return False
    gold, parsed = _boxed(truth), _boxed(said)
    try:
        # math-verify's own limits are off: whoever runs this bounds its time, and counts what was out of time.
        return bool(math_verify.verify(gold, parsed, timeout_seconds=None)) and _close(gold, parsed)
    except Exception:  # it meets whatever a policy writes
        return False


def _close(gold: list[Any], parsed: list[Any]) -> bool:
    """Whether two numbers differ by a millionth of the larger at most; what is no number is left to math-verify."""
    from sympy import Expr  # type: ignore[import-untyped]

    one, other = gold[0], parsed[0]
    if not all(isinstance(item, Expr) and item.is_number for item in (one, other)):
        return True
    return bool(abs((one - other).evalf(20)) <= _CLOSE * max(abs(one.evalf(20)), abs(other.evalf(20))))


def _vote(said: str) -> str:
    """Returns an answer in a form that its spellings share."""
    if len(said) > _answers.LONGEST or is_letters(said) or _too_large(said):
        return said
    value = rational(said)
    if value is not None:
        return str(value)
    parsed = _boxed(said)
    try:
        return str(parsed[0]) if parsed else said
    except Exception:  # such as more digits than Python writes
        return said


def _boxed(text: str) -> list[Any]:
    return _parse(f"\\boxed{{{text}}}")


@functools.cache
def _extraction() -> list[Any]:
    """Returns math-verify's usual settings, but for units: it takes letters for them, such as the `m` of `2m`."""
    import math_verify

    latex = math_verify.LatexExtractionConfig()
    config = dataclasses.replace(latex.normalization_config, units=False)
    return [dataclasses.replace(latex, normalization_config=config), math_verify.ExprExtractionConfig()]


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> list[Any]:
    import math_verify

    try:
        return list(math_verify.parse(text, _extraction(), parsing_timeout=None))
    except Exception:  # it meets whatever a policy writes
        return []


def _too_large(text: str) -> bool:
    """Whether a power or factorial has too many digits or terms to compute, or brackets nest too deep to parse."""
    if _depth(text) > _DEEPEST:
        return True
    flat = re.sub(r"[\s{}]", "", text).replace("**", "^")
    if any(int(power) > _LARGEST_POWER_OF_SUM for power in re.findall(r"\)\^\(?(\d{1,9})", flat)):
        return True
    if any(int(number) > _LARGEST_EXPONENT for number in re.findall(r"(\d{1,9})\)?!", flat)) or "!!" in flat:
        return True
    for tower in re.findall(r"\^\(?-?(\d+(?:\^\(?-?\d+)*)", flat):
        exponent = 1
        for step in reversed(re.findall(r"\d+", tower)):
            if len(step) > 5 or exponent * len(step) > 40:
                return True
            exponent = int(step) ** exponent
        if exponent > _LARGEST_EXPONENT:
            return True
    return False


def _depth(text: str) -> int:
    """Returns how deep brackets nest."""
    depth = deepest = 0
    for character in text:
        depth += 1 if character in "([{" else -1 if character in ")]}" else 0
        deepest = max(deepest, depth)
    return deepest
