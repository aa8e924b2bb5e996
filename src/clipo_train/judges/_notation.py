"""One spelling of mathematics for the many in which people and models write it."""

import re
import unicodedata

from clipo_train.judges._answers import LONGEST, WRAPPED

_SYMBOLS = {
    **dict.fromkeys("−–‐‑", "-"),
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "±": r"\pm ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "°": r"^\circ ",
    "θ": r"\theta ",
    "∅": r"\emptyset ",
    "√": r"\sqrt ",
    "⁄": "/",
}
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_SAME = {"yes": "true", "no": "false", **{word: str(number) for number, word in enumerate(NUMBER_WORDS)}}


def plain(text: str) -> str:
    """Returns an answer in TeX and ASCII as far as it goes, without what is only for the eye."""
    if len(text) > LONGEST:
        return text.strip()
    text = "".join(map(_character, text.replace("\\$", "USD ")))
    text = re.sub(r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])\s*\.?|\\!|\{\\!\}|\$|\\phantom", "", text)
    text = re.sub(r"\\[,;: ]|\\q?quad|~", " ", text).replace("{,}", ",")
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"\\sqrt\s+(\([^()]*\)|\d+)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\(?:approx|simeq)\s*(?=\S*\Z)|\\mathbf\s*\{([\d.,]+)\}", r"\1", text)
    text = text.strip().rstrip(".").strip()
    whole = WRAPPED.fullmatch(text)
    return whole[1].strip() if whole else text


def spelling(text: str) -> str:
    """Returns a plain answer without spaces and fonts; in small letters where it has no mathematics."""
    letters = is_letters(text)
    text = re.sub(r"\s", "", WRAPPED.sub(r"\1", text)).rstrip(".")
    text = text.removeprefix("+")
    text = text.lower() if letters else text
    return _SAME.get(text, text)


def is_letters(text: str) -> bool:
    """Whether an answer is words, or an order of letters: at least two letters, and no sign of mathematics."""
    text = WRAPPED.sub(r"\1", text)
    return (
        len(re.findall(r"[^\W\d_]", text)) > 1 and re.search(r"[\d\\^_+/*=<>|!{}]", text) is None and not _minus(text)
    )


def words(text: str) -> list[str]:
    """Returns words of four letters, or three capitals, or more that are no functions, as in an angle `ABC`."""
    text = re.sub(r"\\(?:begin|end)\s*\{[a-z]*\}|\\[a-zA-Z]+", " ", text)
    found = [word.lower() for word in re.findall(r"[^\W\d_]{4,}|[A-Z]{3,}", text)]
    return [word for word in found if not re.fullmatch(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|sqrt|frac|infty", word)]


def _minus(text: str) -> bool:
    """Whether a hyphen stands between single letters, as a minus does."""
    return re.search(r"(?<![^\W\d_])-|(?<![^\W\d_])[^\W\d_]\s*-\s*[^\W\d_](?![^\W\d_])", text) is not None


def _character(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    kind, _, parts = unicodedata.decomposition(character).partition(" ")
    flat = unicodedata.normalize("NFKC", character).replace("⁄", "/").replace("−", "-")
    if kind == "<super>" and parts:
        return f"^{{{flat}}}"
    if kind == "<fraction>":
        return "\\frac{{{}}}{{{}}}".format(*tuple(flat.split("/"))) if re.fullmatch(r"\d+/\d+", flat) else flat
    return flat
