"""Draws the tables of the performance page from the committed results, `benchmarks/results/*.json`."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
_MARKER = "<!-- benchmark results -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with every page's text."""
    if _MARKER not in markdown:
        return markdown
    return markdown.replace(_MARKER, "\n\n".join(section(path) for path in sorted(RESULTS.glob("*.json"))))


def section(path: Path) -> str:
    """One file's results as a heading, a table and the machine."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        f"| {row['what']} | {row['ours']} | {row['other']} | {row['ratio']:.3g} | {_limit(row)} |"
        for row in result["rows"]
    ]
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    header = "| what | ours | other | ratio | wanted |\n|---|---|---|---|---|"
    return f"## `benchmarks/{path.stem}.py`\n\n" + "\n".join([header, *rows]) + f"\n\nMeasured on: {machine}."


def _limit(row: dict[str, Any]) -> str:
    if row["wanted"] is None:
        return ""
    return f"at most {row['wanted']:g}: " + ("met" if row["ratio"] <= row["wanted"] else "**missed**")
