"""The public surface: what it is, how it is documented, and who imports whom."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest

import clipo_ops

from .api_snapshot import SNAPSHOT, public_api
from .table import PUBLIC

PACKAGE = Path(clipo_ops.__file__).parent
# A family of functions, one module or package, imports only from itself and from families above it.
FAMILIES = [
    "_typing",
    "_numerics",
    "_groups",
    "_masking",
    "_pooling",
    "_kernels",
    "_contrastive",
    "_distributed",
    "_rewards",
    "_advantages",
    "_returns",
    "_logprobs",
    "_importance",
    "_surrogates",
    "_losses",
    "_diagnostics",
    "experimental",
]
AXES = {
    "rollouts",
    "tokens",
    "hidden",
    "dim",
    "vocab",
    "groups",
    "slots",
    "*anchors",
    "candidates",
    "signals",
    "steps",
    "...",
}
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path != PACKAGE / "__init__.py"]
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """The full names of all imported modules, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function) else function.body


# --- stability


def test_the_public_api_is_the_committed_one() -> None:
    """If this is what you want: python tests/ops/api_snapshot.py"""
    assert public_api() == SNAPSHOT.read_text()


def test_all_is_sorted_complete_and_nothing_else_is_public() -> None:
    assert sorted(set(clipo_ops.__all__)) == clipo_ops.__all__
    public = {
        name for name, value in vars(clipo_ops).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(clipo_ops.__all__)


# --- layers


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_family_imports_only_from_families_above_it(path: Path) -> None:
    family = path.relative_to(PACKAGE).with_suffix("").parts[0]
    allowed = FAMILIES[: FAMILIES.index(family) + 1]
    assert {name.split(".")[1] for name in imports(path) if name.startswith("clipo")} <= set(allowed)


@every_file
def test_nothing_is_imported_but_torch_and_the_shape_checkers(path: Path) -> None:
    allowed = {"torch", "einops", "jaxtyping", "beartype", "clipo_ops"} | set(sys.stdlib_module_names)
    assert {name.partition(".")[0] for name in imports(path)} <= allowed


@every_file
def test_annotations_are_not_postponed(path: Path) -> None:
    """It would silently disable shape checking."""
    assert "__future__" not in imports(path)


def test_importing_the_package_imports_no_trainer() -> None:
    script = "import sys, clipo_ops; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"transformers", "accelerate", "clipo_train", "pydantic"}.isdisjoint(done.stdout.split())
    assert "clipo_ops" in done.stdout.split()


# --- size


def lines_of_code(path: Path) -> int:
    """Lines that are neither empty, nor a comment, nor part of a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [
        node.body[0] for node in ast.walk(tree(path)) if isinstance(node, documented) and ast.get_docstring(node)
    ]
    skipped = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = enumerate(path.read_text().splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for n, line in lines if n not in skipped)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_has_more_than_150_lines_of_code(path: Path) -> None:
    assert lines_of_code(path) <= 150


@every_file
def test_no_body_is_longer_than_40_lines(path: Path) -> None:
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f.name: (body(f)[-1].end_lineno or 0) - body(f)[0].lineno + 1 for f in functions if body(f)}
    assert {name: length for name, length in lengths.items() if length > 40} == {}


# --- signatures and documentation


@every_function
def test_tensors_come_first_and_hyperparameters_by_keyword(name: str) -> None:
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    for parameter in parameters:
        positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert positional or parameter.kind is parameter.KEYWORD_ONLY
        assert not positional or parameter.default is parameter.empty, parameter.name


@every_function
def test_axes_have_one_name_everywhere(name: str) -> None:
    hints = [p.annotation for p in inspect.signature(PUBLIC[name]).parameters.values()]
    used = {axis for hint in hints if hasattr(hint, "dim_str") for axis in hint.dim_str.split()}
    assert used <= AXES


def sections(name: str) -> dict[str, str]:
    """The sections of a docstring, by title; what comes before them is ""."""
    parts = re.split(r"^(\w+):\n", inspect.getdoc(PUBLIC[name]) or "", flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


@every_function
def test_a_docstring_has_an_equation_and_every_section(name: str) -> None:
    function = PUBLIC[name]
    definition = ast.parse(inspect.getsource(inspect.unwrap(function))).body[0]
    called = {n.func.id for n in ast.walk(definition) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    parameters = inspect.signature(function).parameters
    takes_groups = "groups" in parameters
    has_choices = any(get_origin(parameter.annotation) is Literal for parameter in parameters.values())
    may_raise = takes_groups or has_choices or called & {"require", "ValueError"}
    found = sections(name)
    assert list(found) == ["", "Args", "Returns", *(["Raises"] if may_raise else []), "Source", "Examples"]
    assert "$" in found[""]
    assert ">>> " in found["Examples"]


@every_function
def test_a_docstring_describes_every_argument(name: str) -> None:
    described = re.findall(r"^    (\w+): ", sections(name)["Args"], re.MULTILINE)
    assert described == list(inspect.signature(PUBLIC[name]).parameters)


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - set(FUNCTIONS)))
def test_a_class_is_documented_with_all_its_fields(name: str) -> None:
    cls = PUBLIC[name]
    doc = inspect.getdoc(cls) or ""
    assert len(doc) > 20
    assert re.findall(r"^    (\w+): ", doc.partition("Attributes:")[2], re.MULTILINE) == list(
        getattr(cls, "_fields", ())
    )


@every_file
def test_no_print_logging_or_global_state(path: Path) -> None:
    assert {"logging", "warnings"}.isdisjoint(imports(path))
    nodes = list(ast.walk(tree(path)))
    assert not [node for node in nodes if isinstance(node, ast.Global | ast.Nonlocal)]
    assert not [node for node in nodes if isinstance(node, ast.Name) and node.id == "print"]
