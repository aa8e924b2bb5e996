r"""Multiple choice: the letter, or the number, of an option."""

import re
import unicodedata

from clipo_train.judges._answers import WRAPPED, braced, marked_answer
from clipo_train.types import Example, Verdict

_TAIL = 1000
_LETTER = r"(?P<letter>[A-Za-z]|\d{1,2}(?![.,]?\d))"
_BEFORE = (
    r"[\s:*_$\"'`(\[{]*(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:option|choice|answer(?:\s+is|:))?[\s:*_$\"'`(\[{]*"
)
_AFTER = (
    r"(?=[\"'`*_$\]})]*(?:$|[.,;:)\]}*\n]|\s+[-–—]\s|\s+(?:because|since|as|for)\b"
    r"|\s+is\s+(?:the\s+)?(?:correct|right)\b))"
)
_CHOICE = re.compile(_BEFORE + _LETTER + _AFTER, flags=re.IGNORECASE)
_ANOTHER = re.compile(
    r"[\s.)\]*]*(?:[,;/&]|or\b|and\b)[\s]*(?:or\b|and\b)?[\s(*]*(?:[A-Z](?![\w'])|[a-z](?=[\s).*]*(?:$|[,;])))"
)
_ANNOUNCED = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s+(?:option|choice))\b(?:\s+(?:is|would be|must be|should be)\b|\s*[*_]*[:=])",
    flags=re.IGNORECASE,
)
_LAST = re.compile(r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Ss]elect|[Pp]ick)\s+[(*]*([A-Z])[\s).*]*$")


def multiple_choice(example: Example, completion: str) -> Verdict:
    """Compares the option that a completion chooses with the ground truth; docs/data.md states the rules."""
    truth, said = choice(example.answer), choice(completion)
    success = said is not None and said == truth
    return Verdict(success, float(success), answer=said)


def choice(text: str) -> str | None:
    r"""Returns the option that a text chooses, as a capital letter or a number; None if it chooses none or several.

    It stands in the last box or `<answer>` tag; else after the last `answer is` or `answer:`; else it is the last line,
    or ends it, as in `so I choose option B`. The option's text may follow the letter, as in `B. four`.
    """
    marked = marked_answer(braced(text))
    if marked is not None:
        return _option(marked)
    tail = text[-_TAIL:]
    announced = list(_ANNOUNCED.finditer(tail))
    if announced:
        return _option(tail[announced[-1].end() :])
    last = tail.strip().rpartition("\n")[2]
    chosen = _LAST.search(last)
    return chosen[1] if chosen else _option(last)


def _option(text: str) -> str | None:
    """Returns the option that a text begins with, where no other one stands beside it."""
    text = WRAPPED.sub(
        r"\1", WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", text).replace("\\(", "(").replace("\\)", ")"))
    )
    found = _CHOICE.match(text.strip())
    if not found or _ANOTHER.match(text.strip(), found.end()):
        return None
    return found["letter"].upper()
