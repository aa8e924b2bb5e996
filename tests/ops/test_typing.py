"""The shape checker: on in eager mode, off under the compiler and by an environment variable, invisible otherwise."""

import inspect
import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import Bool, Float, TypeCheckError
from torch import Tensor

import clipo_ops
from clipo_ops import GroupLayout
from clipo_ops._typing import require, shaped

from .table import PUBLIC

FUNCTIONS = [value for value in PUBLIC.values() if inspect.isfunction(value)]


@shaped
def scale(
    values: Float[Tensor, "rollouts tokens"], mask: Bool[Tensor, "rollouts tokens"], *, factor: float = 2.0
) -> Float[Tensor, "rollouts tokens"]:
    """Scales values."""
    return torch.where(mask, values * factor, 0)


@shaped
def wrong(values: Float[Tensor, " rollouts"]) -> Float[Tensor, " rollouts"]:
    return values[1:]


VALUES, MASK = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("values", "mask"),
    [
        (VALUES, MASK[:, 1:]),
        (VALUES[0], MASK[0]),
        (VALUES.long(), MASK),
        (VALUES, MASK.float()),
        (VALUES.tolist(), MASK),
        (VALUES, None),
    ],
    ids=["axes differ", "axes missing", "integers", "a float mask", "a list", "None"],
)
def test_a_wrong_shape_or_dtype_raises(values: object, mask: object) -> None:
    with pytest.raises(TypeCheckError):
        scale(values, mask)


def test_a_wrong_result_raises() -> None:
    with pytest.raises(TypeCheckError):
        wrong(torch.ones(3))


def test_the_error_names_the_argument_and_its_shape() -> None:
    with pytest.raises(TypeCheckError, match=r"mask(?s:.*)bool\[2,2\]"):
        scale(VALUES, MASK[:, 1:])


def test_an_integer_is_a_float_and_a_string_is_not() -> None:
    assert scale(VALUES, MASK, factor=3).max() == 3
    with pytest.raises(TypeCheckError):
        scale(VALUES, MASK, factor="3")


def test_an_environment_variable_switches_the_checks_off() -> None:
    script = "import torch, clipo_ops; print(clipo_ops.contrastive_reward(torch.ones(2, 3)).shape)"
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout == "torch.Size([2, 3])\n"
    with pytest.raises(TypeCheckError):
        clipo_ops.contrastive_reward(torch.ones(2, 3))


def test_the_compiler_sees_the_plain_function() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(scale, fullgraph=True, backend="eager")
    assert torch.equal(compiled(VALUES, MASK), scale(VALUES, MASK))


def test_every_function_has_a_code_object_of_its_own() -> None:
    codes = [function.__code__ for function in FUNCTIONS]
    assert len({id(code) for code in codes}) == len(FUNCTIONS)
    assert len(set(codes)) == len(FUNCTIONS)
    assert [code.co_name for code in codes] == [function.__name__ for function in FUNCTIONS]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_signature_defaults_and_docstring_show_through(function: object) -> None:
    plain = inspect.unwrap(function)
    assert plain is not function
    assert inspect.signature(function) == inspect.signature(plain)
    assert function.__doc__ == plain.__doc__


def test_a_default_is_visible() -> None:
    assert inspect.signature(clipo_ops.contrastive_loss).parameters["temperature"].default == 0.05


def test_require_says_all_in_one_line() -> None:
    require(True, "size", "at least 1", 0)
    with pytest.raises(ValueError, match=r"^size: expected at least 1, got 0$"):
        require(False, "size", "at least 1", 0)


def test_a_layout_lays_out_its_own_number_of_rollouts_only() -> None:
    layout = GroupLayout.from_ids(torch.tensor([1, 0, 1]))
    with pytest.raises((TypeCheckError, ValueError)):
        layout.gather(torch.arange(5.0))
