"""CLIPO inside verl, by its plugin interface: estimators, policy losses, a trainer and an engine, under names of ours.

verl loads `plugin` by its entry point in each of its processes, and is silent where that fails: ask `check`.
"""

from clipo_train.adapters.verl.selfcheck import Registered, check

__all__ = ["Registered", "check"]
