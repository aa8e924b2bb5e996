"""Adding an estimator touches four files: CONTRIBUTING shows it for `corpo_advantages`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = "corpo_advantages"
FILES = {
    "src/clipo_ops/_advantages/group.py",
    "src/clipo_ops/__init__.py",
    "tests/ops/oracles/advantages.py",
    "docs/api/advantages.md",
}


def test_its_name_is_needed_in_four_files_only() -> None:
    """Beside the generated snapshot and what is written about it: its own properties, this page's example, docs."""
    code = [path for folder in ("src", "tests", "docs/api") for path in (ROOT / folder).rglob("*")]
    named = {
        path.relative_to(ROOT).as_posix()
        for path in code
        if path.suffix in {".py", ".md"} and SHOWN in path.read_text(encoding="utf-8")
    }
    assert named - {"tests/ops/test_estimators.py", "tests/ops/test_adding.py"} == FILES


def test_contributing_shows_these_files() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {file for file in FILES if file in guide} == FILES
