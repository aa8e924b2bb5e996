"""Shape checking that `torch.compile` survives, and the one-line errors for values."""

import functools
import types
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

P = ParamSpec("P")


R = TypeVar("R")




_typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))


def shaped(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the shapes and dtypes of a function's annotations on every eager call.

    Keyword arguments that are a `Literal` get a ValueError that lists the choices, in compiled code too.

    While `torch.compile` traces, the plain function runs instead: the checks would break the graph, and the
    shapes are the same as those of the eager call. `JAXTYPING_DISABLE=1` switches the checks off altogether.
    """
    checked = jaxtyped(typechecker=_typechecker)(function)
    hints: dict[str, Any] = function.__annotations__
    choices = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name in choices:
            if name in kwargs and kwargs[name] not in choices[name]:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices[name]))}, got {kwargs[name]!r}")
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return checked(*args, **kwargs)

    # Dynamo keeps its cache on code objects. A code object shared by all decorated functions would run into the
    # recompile limit after eight of them, so every function gets a copy of its own.
    own_code = wrapper.__code__.replace(co_name=function.__name__)
    own = types.FunctionType(own_code, wrapper.__globals__, closure=wrapper.__closure__)
    return functools.wraps(function)(own)


def require(condition: bool, argument: str, wanted: str, got: object) -> None:
    """Raises a ValueError that names the argument, what was expected and what it got."""
    if not condition:
        raise ValueError(f"{argument}: expected {wanted}, got {got!r}")


def require_rollouts(wanted: int, argument: str, got: int) -> None:
    """Raises a ValueError for another number of rollouts.

    It formats only then: a size in a string is a constant to `torch.compile`, which would compile for every batch size.
    """
    if got != wanted:
        raise ValueError(f"{argument}: expected {wanted} rollouts, got {got}")
