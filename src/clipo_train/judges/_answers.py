r"""Where the final answer stands in a completion, or in a ground truth that is a whole solution."""

import re

WRAPPED = re.compile(r"\\(?:text|mbox|textnormal|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\s*\{([^{}]*)\}")
"""TeX's commands for fonts, around text."""

_BRACES = re.compile(r"\\{1,2}f?box(?:ed)?\s*\{|\\.|[{}]", flags=re.DOTALL)
_SHORT = re.compile(r"\\boxed(?:\s+(\w)|(\d))")
_TAG = re.compile(r"<(/?)answer>", flags=re.IGNORECASE)
_JOIN = re.compile(r"(?:[\s$,;.&()\[\]]|\\[,;! ()\[\]]|\\q?quad|\\text\s?\{|\}|and|or|[a-zA-Z]\s?=)*")
_ANNOUNCED = re.compile(r"\banswer\b[^\n.:=$]{0,40}?(?:\bis\b|:|=)|####", flags=re.IGNORECASE)
_FORMULA = re.compile(r"\$\$?([^$\n]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_NUMBER = re.compile(
    r"(?<![\w.,(\[/^{])(?:[-+−]\s?)?(?:\\?[$€£¥]\s?)?\.?\d[\d.,]*(?:\s\d+/\d+|\s?/\s?\d+)?(?:\s?(?:%|\\?[A-Za-z]+))?"
)
_TAIL = 1000


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{}` that is closed."""
    return next(reversed(boxes(text)), None)


def boxes(text: str) -> list[str]:
    r"""Returns the content of each `\boxed{}` that is closed and holds no other box."""
    return [text[start:end] for _, start, end in _spans(text)]


def braced(text: str) -> str:
    r"""Writes out TeX's short `\boxed 9` as `\boxed{9}`."""
    return _SHORT.sub(lambda short: f"\\boxed{{{short[1] or short[2]}}}", text)


def final_boxes(text: str) -> str | None:
    r"""Returns the last box, joined by commas to those that only separators such as `,` or `and` keep from it."""
    spans = _spans(text)
    if not spans:
        return None
    parts = [text[spans[-1][1] : spans[-1][2]]]
    for (_, start, end), (following, _, _) in zip(spans[-2::-1], spans[:0:-1], strict=True):
        if following - end > 40 or not _JOIN.fullmatch(text[end + 1 : following]):
            break
        parts.insert(0, text[start:end])
    return ", ".join(dict.fromkeys(parts))


def marked_answer(completion: str) -> str | None:
    """Returns what stands in the last box or `<answer>` tag of a completion, whichever ends later."""
    tags = list(_TAG.finditer(completion))
    for opening, closing in zip(tags[-2::-1], tags[:0:-1], strict=True):
        if closing[1] and not opening[1]:
            after = final_boxes(completion[closing.end() :])
            inside = completion[opening.end() : closing.start()]
            return after or final_boxes(inside) or inside
    return final_boxes(completion)


def final_answer(completion: str) -> str | None:
    """Returns the final answer of a completion.

    It is marked by a box or tag; else it stands after the last `answer is`, `answer:` or `####`; else it is the last
    formula or number of the last line. After a box that is not closed there is none.
    """
    completion = braced(completion)
    marked = marked_answer(completion)
    if marked is not None:
        return _in_prose(marked) if _ANNOUNCED.search(marked) else marked
    tail = completion[-_TAIL:]
    return None if re.search(r"\\f?box(?:ed)?\s*\{", tail) else _in_prose(tail)


def _spans(text: str) -> list[tuple[int, int, int]]:
    r"""Returns where each closed box without another inside begins, its content begins, and ends; in one pass."""
    found: list[tuple[int, int, int]] = []
    opened: list[re.Match[str]] = []
    for brace in _BRACES.finditer(text):
        if brace[0] == "{" or len(brace[0]) > 2:
            opened.append(brace)
        elif brace[0] == "}" and opened:
            opening = opened.pop()
            if len(opening[0]) > 1 and not (found and found[-1][0] > opening.start()):
                found.append((opening.start(), opening.end(), brace.start()))
    return found


def _in_prose(text: str) -> str | None:
    announced = list(_ANNOUNCED.finditer(text))
    if announced:
        text = text[announced[-1].end() :]
    lines = [line.strip(" \t*_:`") for line in text.splitlines()]
    lines = [line for line in lines if re.search(r"\w", line)]
    if not lines:
        return None
    line = lines[0] if announced else lines[-1]
    formulas = [str(next(filter(None, found))) for found in _FORMULA.findall(line)]
    if formulas:
        return formulas[0 if announced else -1]
    if announced:
        said = re.split(r"[.!?](?:\s|$)|,? (?:because|since|so|as|which|where)\b", line)[0].strip(" *_`")
        said = re.sub(r"^.* (?:is|are|equals)\s+(?=[-+$]?\d)", "", said)
        first = _NUMBER.match(said)
        return str(first[0]) if first and not re.search(r"\d|\\", said[first.end() :]) else said
    if len(lines) == 1 and len(line) <= 60 and not re.search(r"[a-z] [a-z]+ [a-z]", line):
        return line
    numbers = _NUMBER.findall(line)
    return str(numbers[-1]).strip(" *_`") if numbers else None
