"""One notation for the many in which people and models write an answer."""

import re
import unicodedata
from collections.abc import Callable

from clipo_train.judges._answers import WRAPPED

_SYMBOLS = {
    **dict.fromkeys("−–—‐‑－", "-"),
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "∶": ":",
    "π": r"\pi ",
    "∞": r"\infty ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "√": r"\sqrt ",
    "°": r"\degree ",
    "%": "%",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "γ": r"\gamma ",
    "λ": r"\lambda ",
    "φ": r"\phi ",
    "₀": "_0",
    "€": "EUR ",
    "£": "GBP ",
    "¥": "JPY ",
    "′": "'",
    "。": ".",
    "¢": "cents",
    "ℝ": r"\mathbb{R}",
}
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SAME = {"yes": "true", "no": "false", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_REWRITES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\\$|(?<![\d}])\$(?=\s?[\d.])(?!.*\$)", "USD "),
    (
        r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|phantom)(?![a-zA-Z])\s*\.?|(?<!\\)\\[()\[\]]|\$|\*\*$|^\*\*",
        "",
    ),
    (r"\\!\s*|\{,\}(?=\d)|(?<=\d)\\[,;:]\s*(?=\d{3}(?!\d))", lambda found: "," if "{" in found[0] else ""),
    (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " "),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\\(?:math(?:bf|it|sf|tt)|boldsymbol|bm)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:mbox|textnormal|text[a-z]{2}|mathrm)\s*\{|\{\s*\\rm\s+", r"\\text{"),
    (r"\^\s*\{?\s*\\circ(?![a-zA-Z])\s*\}?|\\degree(?![a-zA-Z])", r"\\text{ degree }"),
    (r"\\frac\s*(\d)", r"\\frac{\1}"),
    (r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"\\sqrt\s*(\d+|[a-z](?![a-z]))", lambda found: _root(found)),
    (r"(?<![\\a-zA-Z])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![\\a-zA-Z])(?:pi)(?![a-zA-Z])", r"\\pi "),
    (r"(?<![\\a-zA-Z])(?:inf|infinity|oo)(?![a-zA-Z])", r"\\infty "),
    (r"\*\*", "^"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le "),
    (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge "),
    (r"\\%", "%"),
    (r"\^\s*\{?\s*(?:\\text\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-z]))\s*\}?", ""),
    (r"(?<=\d)(?:\\text\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-zA-Z]))", ""),
    (r"(?:,\s*)?(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))", ", "),
    (r"\s+", " "),
]
_MIXED = re.compile(r"(?<![\w.}/^_])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}|(?<![\w.}/^_])(\d+) (\d+)/(\d+)(?![\d/.])")


def plain(text: str) -> str:
    """Returns an answer in one notation: TeX and ASCII, without what is only for the eye."""
    text = "".join(map(_character, text))
    for pattern, replacement in _REWRITES:
        text = re.sub(pattern, replacement, text)
    text = _MIXED.sub(_improper, text).lstrip(" ,;:`").rstrip(" .,;:`")
    while (whole := WRAPPED.fullmatch(text) or re.fullmatch(r"\{([^{},]*)\}", text)) is not None:
        text = whole[1].lstrip(" ,;:").rstrip(" .,;:")
    return text


def spelling(text: str) -> str:
    """Returns a plain answer without spaces and fonts; in small letters where it is words."""
    letters = is_words(text)
    text = re.sub(
        r"(?<![a-zA-Z]{2})\s*(?:\\cdot(?![a-zA-Z])|\*)\s*(?=[a-zA-Z](?![a-zA-Z]))", "", WRAPPED.sub(r"\1", text)
    )
    text = re.sub(r"[\s`]", "", text)
    text = re.sub(r"\{(\w)\}", r"\1", text).removeprefix("+").rstrip(".")
    text = text.lower() if letters else re.sub(r"^\(([A-Za-z])\)$", r"\1", text)
    return _SAME.get(text, text)


def is_words(text: str) -> bool:
    """Whether an answer is words or an order of letters: letters alone, other than products of x, y and z."""
    text = re.sub(r"\\(?:angle|triangle)(?![a-zA-Z])", "", WRAPPED.sub(r"\1", text))
    letters = "".join(re.findall(r"[^\W\d_]", text))
    hyphens = re.sub(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})", "", text)
    return len(letters) > 1 and not set(letters) <= set("xyz") and not re.search(r"[\d\\^_+*/=<>|!{}-]", hyphens)


def names(text: str) -> list[str]:
    """Returns the names inside a formula, such as `ABC`, whose letters have an order."""
    return sorted(re.findall(r"[A-Z]{3,}|[a-z]{5,}", re.sub(r"\\(?:begin|end)\s*\{\w*\}|\\[a-zA-Z]+", " ", text)))


def _root(found: re.Match[str]) -> str:
    return f"\\sqrt{{{found[1]}}}" if "sqrt " in found[0] or len(found[1]) == 1 else found[0]


def _improper(mixed: re.Match[str]) -> str:
    whole, above, below = (int(part) for part in mixed.groups() if part)
    return f"\\frac{{{whole * below + above}}}{{{below}}}" if above < below else mixed[0]


def _character(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    kind = unicodedata.decomposition(character).partition(" ")[0]
    flat = unicodedata.normalize("NFKC", character).translate({0x2044: "/", 0x2212: "-"})
    if kind in ("<super>", "<sub>"):
        return ("^" if kind == "<super>" else "_") + f"{{{flat}}}"
    if kind == "<fraction>" and re.fullmatch(r"\d+/\d+", flat):
        return "\\frac{{{}}}{{{}}}".format(*flat.split("/"))
    return flat
