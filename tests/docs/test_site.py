"""The site: every public name has its entry and its tests, every formula is rendered."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clipo_ops
from clipo_ops import experimental

ROOT = Path(__file__).parents[2]
PUBLIC = {name: getattr(clipo_ops, name) for name in clipo_ops.__all__} | {
    f"experimental.{name}": getattr(experimental, name) for name in experimental.__all__
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_is_documented(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "api").rglob("*.html"))
    missing = [name for name in PUBLIC if f'id="clipo_ops.{name}"' not in pages]
    assert missing == []


def test_every_formula_is_rendered(site: Path) -> None:
    texts = {path: path.read_text() for path in site.rglob("*.html")}
    assert sum(text.count("<math") for text in texts.values()) > 60
    for path, text in texts.items():
        assert 'class="arithmatex"' not in text, path
        visible = re.sub(r"<(script|pre|code|math)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\\(frac|sum|log|lambda|tau|text|lVert|operatorname)\b|\$\$", visible), path


def test_the_paper_index_has_every_function_and_a_test_of_it(site: Path) -> None:
    page = (site / "paper-index.html").read_text()
    functions = {name for name in PUBLIC if inspect.isfunction(PUBLIC[name])}
    assert {name for name in functions if f"#clipo_ops.{name}" not in page} == set()
    assert "Tests: </p>" not in page


def test_every_function_links_to_its_tests_and_its_oracle(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "api").rglob("*.html"))
    functions = [name for name in clipo_ops.__all__ if inspect.isfunction(getattr(clipo_ops, name))]
    lists = dict(re.findall(r"<summary>Tests of (\w+): \d+</summary><ul>(.*?)</ul>", pages))
    assert [name for name in functions if "The oracle" not in lists.get(name, "")] == []


def test_every_test_that_a_page_names_exists() -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", (ROOT / "docs" / "differences.md").read_text())
    assert len(named) > 10
    wanted = {(file, f"def {name or 'test_'}") for file, name in named}
    assert {(file, code) for file, code in wanted if code not in tests.get(file, "")} == set()


def test_every_metric_has_a_formula_and_what_is_healthy(site: Path) -> None:
    page = (site / "metrics.html").read_text()
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    rows = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr>")[1:]]
    assert len(rows) > 40
    assert [row for row in rows if len(row) != 4 or not all(row)] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?://[^"]+)"', path.read_text())
        assert fetched == [], path
