"""Writes the paper index from the docstrings of `clipo_ops`: paper, equation, function, tests."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from api_tests import calls, page_of, sources  # the hook beside this one

ROOT = Path(__file__).parents[2]
_MARKER = "<!-- paper index -->"
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
_ENTRY = re.compile(r"^::: clipo_ops\.((?:experimental\.)?\w+)$", re.MULTILINE)
_PAGES = {path.name: f"[`{path.name}`]({page_of(path)})" for path in sources()}


class Entry(NamedTuple):
    """A public function: its equation, where it comes from, its API page and the tests that call it."""

    name: str
    equation: str
    source: str
    page: str
    tests: list[str]

    def __str__(self) -> str:
        tests = ", ".join(_PAGES.get(test, f"`{test}`") for test in self.tests)
        link = f"[`{self.name}`](api/{self.page}#clipo_ops.{self.name})"
        return f"{link}: {self.source}\n\n$${self.equation}$$\n\nTests: {tests}\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with every page's text."""
    return markdown.replace(_MARKER, index()) if _MARKER in markdown else markdown


def index() -> str:
    """A section for every paper, in order of its arXiv id, then one for what has none."""
    by_paper: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries():
        for paper in _ARXIV.findall(entry.source) or [""]:
            by_paper[paper].append(entry)
    papers = [*sorted(by_paper.keys() - {""}), *({""} & by_paper.keys())]
    return "\n".join(f"{_heading(paper)}\n\n" + "\n".join(map(str, by_paper[paper])) for paper in papers)


def entries() -> Iterator[Entry]:
    """Every public function that has a page."""
    tests = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    shared = {"test_api.py", "test_compile.py", "test_errors.py", "test_fake.py", "test_table.py", "test_site.py"}
    docstrings = dict(_docstrings())
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for path in _ENTRY.findall(page.read_text(encoding="utf-8")):
            name = path.rpartition(".")[2]
            if name in docstrings:
                text = docstrings[name]
                callers = [test for test, code in tests.items() if test not in shared and calls(name, code)]
                yield Entry(path, _first_equation(text), _source(text), page.name, callers)


def _docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src" / "clipo_ops").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                docstring = ast.get_docstring(node) or ""
                if "Source:" in docstring:
                    yield node.name, docstring


def _first_equation(docstring: str) -> str:
    """The first display equation, else the first cell of mathematics."""
    match = re.search(r"\$\$(.+?)\$\$", docstring, re.DOTALL) or re.search(r"\$(.+?)\$", docstring, re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def _source(docstring: str) -> str:
    text = re.split(r"^\w+:\n", docstring.partition("Source:\n")[2], flags=re.MULTILINE)[0]
    return " ".join(text.split())


def _heading(paper: str) -> str:
    return f"## arXiv [{paper}](https://arxiv.org/abs/{paper})" if paper else "## Without a paper"
