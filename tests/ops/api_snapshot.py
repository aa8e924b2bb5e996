"""The public API as text: every public name with its signature, as the source writes it.

A change to `api_snapshot.txt` is a change to the public API, to be reviewed as one. Write it anew with

    python tests/ops/api_snapshot.py
"""

import ast
import inspect
import textwrap
from pathlib import Path

import clipo_ops

SNAPSHOT = Path(__file__).with_suffix(".txt")


def public_api() -> str:
    """One line per function; one per public method and field of a class."""
    return "".join(f"{line}\n" for name in sorted(clipo_ops.__all__) for line in _describe(name))


def _describe(name: str) -> list[str]:
    source = inspect.getsource(inspect.unwrap(getattr(clipo_ops, name)))
    definition = ast.parse(textwrap.dedent(source)).body[0]
    if isinstance(definition, ast.FunctionDef):
        return [_signature(definition)]
    assert isinstance(definition, ast.ClassDef)
    members = [_signature(m) for m in definition.body if isinstance(m, ast.FunctionDef) and _is_public(m.name)]
    fields = [ast.unparse(m) for m in definition.body if isinstance(m, ast.AnnAssign)]
    bases = ", ".join(map(ast.unparse, definition.bases))
    return [f"class {name}({bases})", *(f"    {member}" for member in fields + members)]


def _signature(function: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{function.name}({ast.unparse(function.args)}){returns}"


def _is_public(name: str) -> bool:
    return name == "__call__" or not name.startswith("_")


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api())
