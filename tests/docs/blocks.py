"""The code blocks of the docs and the README, and the commands in their text."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^( *)```(.*?)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_INCLUDED = re.compile(r'^--8<-- "([^":]+)"$')
_COMMAND = re.compile(r"`((?:clipo [^`\s]+|make|pip install|python) [^`]+|accelerate launch [^`]+ -m [^`]+)`")


class Block(NamedTuple):
    """A fenced block: where it stands, what language it is in, its text, and whether only blank lines precede it."""

    page: Path
    line: int
    language: str
    code: str
    follows: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """A page's fenced blocks in order; one that is a whole file is that file's text."""
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        language = match[2].strip("{} ").lstrip(".")
        code = textwrap.dedent(match[3])
        if included := _INCLUDED.match(code.strip()):
            code = (ROOT / included[1]).read_text(encoding="utf-8")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, code, not text[end : match.start()].strip()))
        end = match.end()
    return found


def every(*languages: str) -> list[Block]:
    """All blocks of these languages."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def inline_commands() -> list[tuple[Path, str]]:
    """Commands in running text."""
    return [
        (page, " ".join(command.split()))
        for page in PAGES
        for command in _COMMAND.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    ]
