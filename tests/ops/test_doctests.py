"""Every example of a docstring runs and prints what it says.

The finder of `doctest` skips decorated functions, so `pytest --doctest-modules` would find next to none of them.
"""

import doctest
import inspect

import pytest
import torch

from .table import PUBLIC

WITH_EXAMPLES = [name for name, value in PUBLIC.items() if ">>>" in (inspect.getdoc(value) or "")]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_docstring_run(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, {**PUBLIC, "torch": torch}, name, None, None)
    assert example.examples
    failed, _ = doctest.DocTestRunner(verbose=False).run(example)
    assert failed == 0


def test_every_function_has_an_example() -> None:
    functions = {name for name, value in PUBLIC.items() if inspect.isfunction(value)}
    assert functions <= set(WITH_EXAMPLES)
