"""Whether verl has what the plugin registers: verl itself logs a plugin's failure at a level that nobody sees."""

import importlib
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import NamedTuple

from clipo_train.errors import ConfigError

TESTED = "0.9.1"
"""The version of verl that this is tested with."""

ENTRY_POINT = "clipo"
PLUGIN = "clipo_train.adapters.verl.plugin"
TRAINER = "clipo"
"""`trainer.v1.trainer_mode`."""
MODEL_TYPE = "clipo_language_model"
"""`actor_rollout_ref.model.model_type`: under this name verl finds our engine. The trainer sets it."""

_INSTALL = "pip install 'clipo[verl]'"


class Registered(NamedTuple):
    """What verl's registries hold under names of ours."""

    verl: str
    estimators: tuple[str, ...]
    losses: tuple[str, ...]
    trainers: tuple[str, ...]
    engines: tuple[str, ...]


def check() -> Registered:
    """What the plugin has registered in this process, or why it has not.

    Returns:
        The names.

    Raises:
        ConfigError: A package is missing, verl did not load the plugin, or the plugin failed.
    """
    found = _version()
    if ENTRY_POINT not in entry_points(group="verl.plugins").names:
        raise ConfigError(
            f"verl.plugins: expected the entry point {ENTRY_POINT!r}, got none; install clipo anew, which declares it"
        )
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and ENTRY_POINT not in [name.strip() for name in policy.split(",")]:
        raise ConfigError(
            f"VERL_USE_EXTERNAL_PLUGINS: expected 'auto' or {ENTRY_POINT!r} among its names, got {policy!r}"
        )
    try:
        importlib.import_module("verl")  # which loads the plugin
        loaded = PLUGIN in sys.modules
        importlib.import_module(PLUGIN)  # which says why that failed
    except ImportError as error:
        raise ConfigError(f"verl.plugins: expected what the trainer needs, got {error}; {_INSTALL}") from error
    except Exception as error:
        raise ConfigError(f"verl.plugins: expected {PLUGIN} to load, got {type(error).__name__}: {error}") from error
    if not loaded:
        raise ConfigError(f"verl.plugins: expected {PLUGIN} loaded with verl, got it later; start a new process")
    return _registered(found)


def warn_if_untested() -> None:
    """Warns where verl is of a version that this is not tested with."""
    found = _version()
    if found != TESTED:
        warnings.warn(f"clipo_train.adapters.verl: tested with verl {TESTED}, got {found}", stacklevel=2)


def _version() -> str:
    try:
        return version("verl")
    except PackageNotFoundError as error:
        raise ConfigError(f"verl: expected version {TESTED}, got none; {_INSTALL}") from error


def _registered(found: str) -> Registered:
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.workers.engine import EngineRegistry

    engines = EngineRegistry._engines.get(MODEL_TYPE, {})
    return Registered(
        found,
        tuple(name for name in ADV_ESTIMATOR_REGISTRY if name.startswith("clipo_")),
        tuple(name for name in POLICY_LOSS_REGISTRY if name.startswith("clipo_")),
        tuple(name for name in TRAINER_REGISTRY if name == TRAINER),
        tuple(f"{MODEL_TYPE} on {backend}" for backend in engines),
    )
