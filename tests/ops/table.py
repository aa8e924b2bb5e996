"""Every public function with example inputs: what the tests of compilation, fake tensors, dtypes and errors run over.

The rows stand beside the oracles, in `oracles/`.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from . import oracles
from .examples import PUBLIC, Case, case

__all__ = ["BAD_VALUES", "CASES", "EAGER_CASES", "ONE_OF_EACH", "PUBLIC", "Case", "case"]

_FAMILIES = [import_module(f"{oracles.__name__}.{module.name}") for module in iter_modules(oracles.__path__)]
CASES: list[Case] = [row for family in _FAMILIES for row in getattr(family, "CASES", [])]
EAGER_CASES: list[Case] = [*CASES, *(row for family in _FAMILIES for row in getattr(family, "EAGER_CASES", []))]
BAD_VALUES: list[tuple[str, str, list[Any], str]] = [
    row for family in _FAMILIES for row in getattr(family, "BAD_VALUES", [])
]

# The first case of every function, for what is too slow to try on all.
ONE_OF_EACH = list({row.op: row for row in reversed(CASES)}.values())
