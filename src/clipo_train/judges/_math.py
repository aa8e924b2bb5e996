r"""Mathematics: words, units, bases, lists and exact numbers are compared here, and algebra by math-verify."""

import functools
import itertools
import re
from typing import Any

from clipo_train.judges import _answers
from clipo_train.judges._lists import is_ordered, items, named
from clipo_train.judges._notation import is_words, names, plain, spelling
from clipo_train.judges._quantities import Number, based, number, quantity, same_number, units_fit
from clipo_train.types import Example, Verdict

_LONGEST = 1000
"""Characters of a final answer; a longer one must be the ground truth to the letter."""
_LARGEST_EXPONENT, _LARGEST_POWER_OF_SUM, _LARGEST_FACTORIAL = 10_000, 30, 5_000
_DEEPEST = 25


def math(example: Example, completion: str) -> Verdict:
    r"""Compares the final answer of a completion with the ground truth; docs/data.md states the rules.

    The ground truth may be bare, a solution with the answer in `\boxed{}`, or one of GSM8K's, with it after `####`.
    """
    said = _answers.final_answer(completion)
    if said is not None and len(said) > _LONGEST:
        success = said.split() == _final_truth(example.answer).split()
        return Verdict(success, float(success))
    if said is None or not (said := plain(said)):
        return Verdict(False, 0.0)
    truth = _truth(example.answer)
    try:
        success = bool(truth) and _equal(truth, said)
    except (ArithmeticError, ValueError, RecursionError):  # they meet whatever a policy writes
        success = False
    return Verdict(success, float(success), answer=_vote(said))


def math_unjudgeable(example: Example) -> str | None:
    """Returns what is wrong with a ground truth that no completion can match, such as an empty one, or None."""
    return (
        None if re.search(r"\w", _final_truth(example.answer)) else f"the empty ground truth {example.answer[-60:]!r}"
    )


def _final_truth(answer: str) -> str:
    answer = _answers.braced(answer)
    boxes = _answers.final_boxes(answer)
    return answer.rpartition("####")[2] if boxes is None else boxes


def _truth(answer: str) -> str:
    truth = _final_truth(answer)
    return plain(truth) if len(truth) <= _LONGEST else ""


def _equal(truth: str, said: str) -> bool:
    """Whether two plain answers are equal, as lists where they are lists."""
    if spelling(truth) == spelling(said):
        return True
    truth, said = _without_name(truth, said)
    (kind, wanted), (other, got) = items(truth), items(said)
    if len(wanted) != len(got):
        return False
    if len(wanted) == 1 and not kind + other:
        return _same(wanted[0], got[0])
    if kind != other and ((kind and other) or ("{}" in (kind, other) and len(wanted) == 1)):
        return False
    if {kind, other} <= {"", "{}"} and not is_ordered(wanted):
        return _same_set(wanted, got)
    return all(map(_equal, wanted, got))


def _same_set(wanted: list[str], got: list[str]) -> bool:
    left = list(got)
    for item in wanted:
        match = next((place for place, other in enumerate(left) if _equal(item, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def _same(truth: str, said: str) -> bool:
    """Whether two answers, neither of them a list, are equal."""
    if spelling(truth) == spelling(said):
        return True
    if is_words(truth) or is_words(said):
        return False
    bases = based(truth), based(said)
    if bases != (None, None):
        return bases[0] == bases[1] or _in_base_ten(truth, bases[0]) == _in_base_ten(said, bases[1]) is not None
    wanted, got = quantity(truth), quantity(said)
    if ":" in truth + said:
        return units_fit(wanted, got) and spelling(wanted.text) == spelling(got.text)
    percents = [("percent" in item.known) for item in (wanted, got)]
    if not any(percents) or all(percents):
        return units_fit(wanted, got) and _same_value(_scaled(wanted.text, wanted.scale), _scaled(got.text, got.scale))
    hundredths = [
        f"\\frac{{{item.text}}}{{100}}" if is_percent else item.text
        for item, is_percent in zip((wanted, got), percents, strict=True)
    ]
    return _same_value(wanted.text, got.text) or _same_value(*hundredths)


def _in_base_ten(text: str, split: tuple[str, str] | None) -> str | None:
    """Returns the digits of a number in base ten, the base that need not be named."""
    if split is not None:
        return split[0] if split[1] == "10" else None
    return text.lstrip("0") if text.isdigit() else None


def _scaled(text: str, scale: int) -> str:
    return text if scale == 1 else f"({text}) \\cdot {scale}"


def _same_value(truth: str, said: str) -> bool:
    wanted, got = _number(truth), _number(said)
    if wanted is not None and got is not None:
        return same_number(wanted, got)
    if spelling(truth) == spelling(said):
        return True
    if names(truth) != names(said) or any(re.search(r"\d [\d.]", text) or _too_large(text) for text in (truth, said)):
        return False
    return _verify(truth, said)


def _number(text: str) -> Number | None:
    scaled = re.fullmatch(r"\((.*)\) \\cdot (\d+)", text)
    hundredth = re.fullmatch(r"\\frac\{(.*)\}\{100\}", text)
    value = number(scaled[1] if scaled else hundredth[1] if hundredth else text)
    if value is None or not (scaled or hundredth):
        return value
    return Number(value.value * int(scaled[2]) if scaled else value.value / 100, value.decimal)


def _without_name(truth: str, said: str) -> tuple[str, str]:
    """Drops `x =` and earlier steps of `x = 2 + 3 = 5`, unless both answers have a name and not the same."""
    (name, truth_value), (other, said_value) = named(truth), named(said)
    if name is not None and other is not None and spelling(name) != spelling(other):
        return truth, said
    if name is not None and not re.fullmatch(
        r"[A-Za-z](?:'|_\w|_\{\w+\})*(?:\([A-Za-z,]+\))?|\\[a-z]+|[A-Za-z ]{2,20}", name
    ):
        return truth, said
    return truth_value, said_value


def _too_large(text: str) -> bool:
    """Whether an answer has powers, factorials or brackets that would take math-verify very long."""
    depths = itertools.accumulate((character in "([{") - (character in ")]}") for character in text)
    if max(depths, default=0) > _DEEPEST:
        return True
    towers = re.findall(r"\^[\s{(]*-?(\d+)[\s)}]*\^[\s{(]*(\d+)(?=[\s)}]*(\^)?)", text)
    if any(
        more or len(low) > 2 or len(high) > 2 or int(low) ** int(high) > _LARGEST_EXPONENT for low, high, more in towers
    ):
        return True
    exponents = [int(power) for power in re.findall(r"\^[\s{(]*-?(\d+)", text)]
    sums = [int(power) for power in re.findall(r"[a-zA-Z][^()]*[)\]}]\s*\^[\s{(]*-?(\d+)", text)]
    factorials = [int(of) for of in re.findall(r"(\d+)[\s)}]*!", text)]
    return (
        max(exponents, default=0) > _LARGEST_EXPONENT
        or max(sums, default=0) > _LARGEST_POWER_OF_SUM
        or max(factorials, default=0) > _LARGEST_FACTORIAL
        or re.search(r"![\s)}]*!|\)\s*!", text) is not None
    )


def _verify(truth: str, said: str) -> bool:
    """Whether math-verify finds two expressions equal, and their values are."""
    import math_verify

    gold, parsed = _parse(truth), _parse(said)
    if not gold or not parsed:
        return False
    # math-verify's own limits are off: whoever runs this bounds its time, and counts what was out of time.
    return bool(math_verify.verify(gold, parsed, timeout_seconds=None)) and _close(gold[0], parsed[0])


def _close(one: Any, other: Any) -> bool:
    """Whether two expressions have the same value at a point, relative to its size; True for relations and matrices."""
    from sympy import Expr, Float, MatrixBase, Rational

    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        return all(map(_close, one.flat(), other.flat()))
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return True
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    point = {symbol: Rational(17 + 6 * place, 13) for place, symbol in enumerate(symbols)}
    try:
        left, right = (item.subs(point).evalf(30) for item in (one, other))
        if not (left.is_number and right.is_number):
            return True
        tolerance = 1e-5 if one.has(Float) or other.has(Float) else 1e-12
        return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
    except Exception:  # whatever has no value
        return True


def _vote(said: str) -> str:
    """Returns an answer in a form that its spellings share."""
    value = number(said)
    if value is not None:
        return str(value.value)
    if is_words(said) or _too_large(said):
        return said
    try:
        return str(next(iter(_parse(said)), said))
    except Exception:  # such as more digits than Python writes
        return said


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> list[Any]:
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    # units are ours: math-verify would strip "east" and "m" from "2m" alike; and of an answer that it cannot read it
    # would take any part that it can
    config = math_verify.LatexExtractionConfig(
        try_extract_without_anchor=False,
        normalization_config=NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True),
    )
    parsed = math_verify.parse(f"\\boxed{{{text}}}", [config], fallback_mode="no_fallback", parsing_timeout=None)
    return list(parsed)
