r"""Multiple choice: the letter of an option."""

import re
import unicodedata

from clipo_train.judges._answers import WRAPPED, braced, final_boxes, tagged
from clipo_train.types import Example, Verdict

_TAIL = 1000
"""Characters at the end of a completion without a box in which a choice is looked for."""
_MARKS = " $*_`\n\t"
_LABEL = r"(?:the\s+)?(?:option|choice|answer)\s*:?\s*"
_ANNOUNCED = re.compile(
    r"(?i:\b(?:answer|option|choice)\s{0,9}(?:is|would be|must be|should be|:)\s{0,9}:?\s{0,9}(?:option\s|choice\s)?)"
    r"[\s*_$`]{0,9}(\([A-Za-z]\)|[A-Za-z](?![A-Za-z'’]))(?=([^\n]{0,80}))"
)
_OPTION_IS = re.compile(
    r"(?i:\b(?:option|choice))\s{1,9}\(?([A-Z])\)?\s{1,9}is\s{1,9}(?:the\s)?(?:correct|right|answer)()"
)
_OTHER_TOO = re.compile(
    r"[\s*_$`)]*(?:,|/|&|\bor\b|\band\b|\bnor\b)\s*(?:(?:or|and)\s)?[\s*_$`(]*(?:[A-Z](?![A-Za-z])|[a-z]\W*\Z)"
)


def multiple_choice(example: Example, completion: str) -> Verdict:
    r"""Compares the letter that a completion chooses with the answer's; docs/data.md states the rules.

    The choice stands in the last `\boxed{}` or `<answer>` tag, else after `answer is` or `answer:`, else alone on the
    last line. The option's text may follow the letter, as in `\boxed{B. four}`. Two letters are no choice.
    """
    truth, said = choice(example.answer), choice(completion)
    success = said is not None and said == truth
    return Verdict(success, float(success), answer=said)


def choice(text: str) -> str | None:
    """Returns the letter that a text chooses, or None."""
    inside = braced(tagged(text))
    boxed = final_boxes(inside)
    if boxed is not None:
        return _letter(boxed[:_TAIL])
    tail = WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", inside[-_TAIL:].strip()))
    found = [*_ANNOUNCED.finditer(tail), *_OPTION_IS.finditer(tail)]
    if found:
        last = max(found, key=lambda match: match.start(1))
        return last[1].strip("()").upper() if _ends(last[1], last[2]) else None
    lines = tail.splitlines()
    return _letter(lines[-1]) if lines else None


def _letter(text: str) -> str | None:
    """Returns the letter of a text that is nothing else but a choice."""
    text = unicodedata.normalize("NFKC", text)
    while (inner := WRAPPED.sub(r"\1", text)) != text:
        text = inner
    text = re.sub(rf"^{_LABEL}(?=\W*[A-Za-z](?![A-Za-z]))", "", text.strip(_MARKS), flags=re.IGNORECASE)
    found = re.fullmatch(r"[\s*_$`]*\(?([A-Za-z])(?:[\s*_$`]*[.:)](.*))?", text.strip(_MARKS), flags=re.DOTALL)
    if found is None or _OTHER_TOO.match(found[2] or "") or re.search(r"(?:^|\s)\(?[A-Z][.:)]\s", found[2] or ""):
        return None
    return found[1].upper()


def _ends(letter: str, rest: str) -> bool:
    """Whether the choice ends with its letter, rather than the letter being a word of a sentence."""
    if _OTHER_TOO.match(rest):
        return False
    if letter.startswith("("):
        return True
    if re.match(r"[\s*_$`]*(?:$|[.,;:)*])|\s+(?:because|since|as)\b", rest):
        return True
    return letter in "BCDEFGHJKLMNOPQRSTUVWXYZ" and re.match(r"\s", rest) is not None
