r"""Where the final answer stands in a completion, or in a ground truth that is a whole solution."""

import re

WRAPPED = re.compile(r"\\(?:text|mbox|textnormal|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\s*\{([^{}]*)\}")
"""TeX's commands for fonts, around text."""

LONGEST = 1000
"""Characters of a final answer; a longer one is only compared by its spelling."""

_BRACES = re.compile(r"\\f?box(?:ed)?\s{0,9}\{|\\.|[{}]", flags=re.DOTALL)
_BETWEEN = re.compile(r"[\s$]*(?:[,;]|,?\s*(?:\\text\s*\{)?\s*(?:and|or)\s*\}?)[\s$]*")
_ANNOUNCED = re.compile(r"\banswer\s{0,9}(?:is\b|:)\s{0,9}:?(?=([^\n]{1,200}))", flags=re.IGNORECASE)


def boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{}` that is closed."""
    return next(reversed(boxes(text)), None)


def boxes(text: str) -> list[str]:
    r"""Returns the content of each `\boxed{}` that is closed and holds no other box."""
    return [text[start:end] for start, end in _spans(text)]


def braced(text: str) -> str:
    r"""Writes out TeX's short `\boxed 9` as `\boxed{9}`."""
    return re.sub(r"(\\boxed)\s{1,9}(\w)", r"\1{\2}", text)


def tagged(text: str) -> str:
    """Returns the content of the last `<answer>` tag where no box follows it, and the text itself otherwise."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    if start < 0 or boxed(text[end:]) is not None:
        return text
    return text[start + len("<answer>") : end]


def final_boxes(text: str) -> str | None:
    r"""Returns the content of the last box, and of those before it with only a comma, `and` or `or` between."""
    spans = _spans(text)
    first = len(spans) - 1
    while first > 0:
        between = text[spans[first - 1][1] + 1 : spans[first][0]]
        between = between[: between.rfind("\\")]
        if len(between) > 20 or not _BETWEEN.fullmatch(between):
            break
        first -= 1
    return ", ".join(text[start:end] for start, end in spans[first:]) if spans else None


def announced(text: str) -> str | None:
    """Returns the rest of the line after the last `answer is` or `answer:`."""
    found = _ANNOUNCED.findall(text)
    return re.split(r"\.\s|\.$", str(found[-1]))[0] if found else None


def _spans(text: str) -> list[tuple[int, int]]:
    r"""Returns start and end of what stands in each closed box that holds no other, in one pass over the text."""
    found: list[tuple[int, int]] = []
    opened: list[int | None] = []  # the content's start for a box, None for another brace
    for brace in _BRACES.finditer(text):
        if brace[0] == "{":
            opened.append(None)
        elif len(brace[0]) > 2:
            opened.append(brace.end())
        elif brace[0] == "}" and opened:
            start = opened.pop()
            if start is not None and not (found and found[-1][0] > start):
                found.append((start, brace.start()))
    return found
