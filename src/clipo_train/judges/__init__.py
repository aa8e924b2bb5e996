r"""Judges: functions of (example, completion) that say whether the completion is correct.

`clipo_train.verifiers` runs them. Where the final answer stands, and how words, units, bases, lists and exact numbers
compare, is ours; algebra is math-verify's, and what a task of reasoning-gym accepts is reasoning-gym's.
"""

from clipo_train.judges._answers import boxed, boxes
from clipo_train.judges._exact_match import exact_match
from clipo_train.judges._math import math, math_unjudgeable
from clipo_train.judges._multiple_choice import choice, multiple_choice
from clipo_train.judges._reasoning_gym import reasoning_gym

__all__ = ["boxed", "boxes", "choice", "exact_match", "math", "math_unjudgeable", "multiple_choice", "reasoning_gym"]
