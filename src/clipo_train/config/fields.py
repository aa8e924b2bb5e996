"""What the sections of the configuration are made of."""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

Count: TypeAlias = Annotated[int, Ge(1)]
Natural: TypeAlias = Annotated[int, Ge(0)]
Positive: TypeAlias = Annotated[float, Gt(0)]
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Seed: TypeAlias = Annotated[int, Interval(ge=0, lt=2**31)]
Fraction: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
Beta: TypeAlias = Annotated[float, Interval(ge=0, lt=1)]
