r"""Where the final answer stands in a completion, or in a ground truth that is a whole solution."""

import re

WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\s*\{([^{}]*)\}")
"""TeX's commands for fonts, around text."""


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` that is closed."""
    return next(reversed(boxes(text)), None)


def boxes(text: str) -> list[str]:
    r"""What stands in each `\boxed{}` that is closed."""
    found = []
    for opening in re.finditer(r"\\f?box(?:ed)?\s*\{", text):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                found.append(text[opening.end() : place])
                break
    return found


def braced(text: str) -> str:
    r"""Text with TeX's short `\boxed 9` written out, which neither we nor math-verify would find."""
    return re.sub(r"(\\boxed)\s+(\w)", r"\1{\2}", text)
