r"""Lists, sets, tuples and intervals: their parts and brackets."""

import re

from clipo_train.judges._answers import WRAPPED
from clipo_train.judges._notation import is_words

_PAIRS = {"(": ")", "[": "]", "{": "}"}


def named(text: str) -> tuple[str | None, str]:
    """Splits `x = 2 + 3 = 5` into the name before the first sign of equality and the value after the last."""
    parts = re.split(r"(?<![<>!:])=|\\(?:approx|simeq|in|equiv)(?![a-zA-Z])", text)
    if len(parts) == 1 or any(len(_split(part)) > 1 for part in (parts[:1] if len(parts) == 2 else parts)):
        return None, text
    return parts[0].strip() or None, parts[-1].strip()


def items(text: str) -> tuple[str, list[str]]:
    r"""Splits an answer into its parts and its brackets: `()`, `[]`, `{}` or other pairs; `\pm` gives two parts."""
    bracketed = text.replace("\\{", "{").replace("\\}", "}").replace("\\langle", "(").replace("\\rangle", ")").strip()
    if bracketed[:1] in _PAIRS and _closing(bracketed) == len(bracketed) - 1:
        inner = _split(bracketed[1:-1])
        if len(inner) > 1 or bracketed[0] == "{":
            kind = bracketed[0] + bracketed[-1]
            return kind, _signs(inner) if kind == "{}" else inner
        return ("", [bracketed[1:-1].strip()]) if bracketed[0] == "(" else ("[]", inner)
    if re.fullmatch(
        r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?:\D.*)?|(?:USD|EUR|GBP) ?-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text
    ):
        return "", [re.sub(r"(?<=\d),(?=\d{3})", "", text)]
    return "", _signs(_split(text))


def _signs(parts: list[str]) -> list[str]:
    r"""Writes out each part with one `\pm` as two."""
    found = []
    for part in parts:
        if len(re.findall(r"\\[pm][mp](?![a-zA-Z])", part)) == 1:
            found += [re.sub(r"\\[pm][mp](?![a-zA-Z])", sign, part).strip().removeprefix("+") for sign in "+-"]
        else:
            found.append(part)
    return found


def _split(text: str) -> list[str]:
    """Splits at commas and semicolons outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [part for part in (*parts, text[start:].strip()) if part]


def _closing(text: str) -> int:
    """Returns the place of the bracket that closes the first one, of whichever kind, or -1."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return place
    return -1


def is_ordered(parts: list[str]) -> bool:
    """Whether the order of a bare list matters: of words, and of letters that are not in alphabetical order."""
    letters = [WRAPPED.sub(r"\1", item).strip("() ") for item in parts]
    if all(len(letter) == 1 and letter.isalpha() for letter in letters):
        return letters != sorted(letters)
    return all(is_words(item) for item in parts)
