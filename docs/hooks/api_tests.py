"""Under every name of the API: the tests that call it, linked to their source, which gets pages of its own."""

import ast
import html
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_ENTRY = re.compile(r"^::: clipo_ops\.(?:experimental\.)?(\w+)$", re.MULTILINE)
_NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_OVER_ALL = {"test_api.py", "test_compile.py", "test_errors.py", "test_fake.py", "test_table.py", "test_site.py"}


class Definition(NamedTuple):
    """A function in a file of tests: its name, where it stands, and its text, with what it is parametrised by."""

    name: str
    path: Path
    line: int
    code: str


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Called by mkdocs: adds a page with the source of each file of tests."""
    _definitions.cache_clear()
    for path in sources():
        name, code = path.relative_to(ROOT), path.read_text(encoding="utf-8")
        text = f"---\nsearch: {{exclude: true}}\n---\n# {path.name}\n\n`{name}`\n\n```python\n{code}```\n"
        page = File.generated(config, page_of(path), content=text, inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Called by mkdocs with every page's text."""
    if not page.file.src_uri.startswith("api/"):
        return _NAMED.sub(_named, markdown)
    return _ENTRY.sub(lambda match: f"{match[0]}\n\n{tests_of(match[1])}", markdown)


def sources() -> list[Path]:
    """Tests of `clipo_ops`, their oracles and the parity tests."""
    tests = ROOT / "tests"
    return [*sorted((tests / "ops").rglob("*.py")), *sorted((tests / "parity").glob("*.py"))]


def page_of(path: Path) -> str:
    """The page with a file's source."""
    return path.relative_to(ROOT).with_suffix(".md").as_posix()


def _named(match: re.Match[str]) -> str:
    """A test that a page names, in words; a link where its source has a page."""
    file, name = match[1], match[2]
    found = next((test for test in _definitions() if (test.path.name, test.name) == (file, name)), None)
    return f"{_link(found, name, above='') if found else _words(name)} <small>{file}</small>"


def tests_of(name: str) -> str:
    """A name's tests as a list that opens, the oracle first."""
    found = _definitions()
    tests = [test for test in found if test.name.startswith("test_") and calls(name, test.code)]
    if not tests:
        return ""
    oracles = [oracle for oracle in found if oracle.path.parent.name == "oracles" and oracle.name == name]
    items = [f"<li>{_link(oracle, 'The oracle: the equation as loops, in float64')}</li>" for oracle in oracles]
    items += [f"<li>{_link(test, test.name)} <small>{test.path.name}</small></li>" for test in tests]
    summary = f"<summary>Tests of {name}: {len(tests)}</summary>"
    return f'<details class="tests">{summary}<ul>{"".join(items)}</ul></details>\n'


def calls(name: str, code: str) -> bool:
    """Whether code has a name in it, or the short one by which tests over a family of functions call it."""
    short, _, family = name.rpartition("_")
    return bool(re.search(rf"\b{name}\b", code)) or (
        bool(short) and f"}}_{family}" in code and bool(re.search(rf"['\"]{short}['\"]", code))
    )


@cache
def _definitions() -> list[Definition]:
    found, constants = [], {path: _constants(path) for path in sources()}
    shared = {
        name: text for path, own in constants.items() if not path.name.startswith("test_") for name, text in own.items()
    }
    for path, own in constants.items():
        if path.name in _OVER_ALL:
            continue
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                code = "\n".join(ast.unparse(part) for part in [*node.decorator_list, node])
                found.append(Definition(node.name, path, node.lineno, _expanded(code, shared | own)))
    return found


def _constants(path: Path) -> dict[str, str]:
    """What a file of tests gives a name to, but for its tests and for the table that has every function."""
    nodes = [] if path.name == "table.py" else ast.parse(path.read_text(encoding="utf-8")).body
    named: dict[str, ast.AST] = {}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef) and path.name.startswith("test_") and not node.name.startswith("test_"):
            named[node.name] = node
    return {name: ast.unparse(node) for name, node in named.items()}


def _expanded(code: str, constants: dict[str, str]) -> str:
    """Code, and all that its names stand for."""
    used = {name for name in constants if re.search(rf"\b{name}\b", code)}
    left = {name: text for name, text in constants.items() if name not in used}
    return code + "".join("\n" + _expanded(constants[name], left) for name in used)


def _link(test: Definition, name: str, *, above: str = "../") -> str:
    page = Path(page_of(test.path)).with_suffix(".html")
    return f'<a href="{above}{page}#__span-0-{test.line}">{html.escape(_words(name))}</a>'


def _words(name: str) -> str:
    """The sentence that a test's name is."""
    return name.removeprefix("test_").replace("_", " ")
