"""`--clipo...`: what CLIPO adds to OpenRLHF's command line."""

import argparse
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from clipo_train.config import ClipoConfig
from clipo_train.config.files import read_clipo
from clipo_train.errors import ConfigError, parser_error

_PREFIX = "--clipo."


@dataclass(frozen=True)
class ClipoArguments:
    """OpenRLHF's arguments hold it as `args.clipo`, in all of its processes."""

    config: ClipoConfig
    """`--clipo.weight` and so on."""
    success_fn: Callable[[Any], Tensor] | None = None
    """`--clipo.success_fn module:function`: from an `Experience` to True for each of its rollouts that is right."""
    success_threshold: float = 0.5
    """`--clipo.success_threshold`: without `success_fn`, a rollout is right if its score is above this."""


def parse_arguments(arguments: Sequence[str]) -> tuple[ClipoArguments, list[str]]:
    """Takes `--clipo...` out of a command line.

    Returns:
        CLIPO's arguments, and those left for OpenRLHF.

    Raises:
        ConfigError: An unknown field, a value of a wrong type or out of range, a function that cannot be imported.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for name in [field.name for field in fields(ClipoConfig)]:
        parser.add_argument(_PREFIX + name, dest=name, default=argparse.SUPPRESS)
    parser.add_argument(f"{_PREFIX}success_fn")
    parser.add_argument(f"{_PREFIX}success_threshold", type=float, default=ClipoArguments.success_threshold)
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(parser_error(str(error))) from None
    for argument in others:
        if argument.startswith(_PREFIX):
            raise ConfigError(parser_error(f"unrecognized arguments: {argument}"))
    values = vars(found)
    function, threshold = values.pop("clipo.success_fn"), values.pop("clipo.success_threshold")
    return ClipoArguments(read_clipo(values), function and _function(function), threshold), others


def _function(name: str) -> Callable[[Any], Tensor]:
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"clipo.success_fn: expected module:function, got {name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"clipo.success_fn: expected a function, got {type(found).__name__} for {name!r}")
    return found  # type: ignore[no-any-return]


def require_supported(args: Any, clipo: ClipoArguments) -> None:
    """What would go wrong only after models are loaded and rollouts sampled.

    Raises:
        ConfigError: Nobody says which rollouts are right, groups without room for an anchor, or images.
    """
    if clipo.success_fn is None and not (args.reward.remote_url or args.train.agent_func_path):
        raise ConfigError(
            "clipo.success_fn: expected a function (module:function) that says which rollouts are right, as a reward "
            "model gives no scores, got none"
        )
    size, needed = args.rollout.n_samples_per_prompt, {"group": 3, "cross": 2, "batch": 1}[clipo.config.scope]
    if size < needed:
        raise ConfigError(
            f"rollout.n_samples_per_prompt: expected at least {needed} for clipo.scope "
            f"{clipo.config.scope!r}, got {size}"
        )
    if args.data.max_images_per_prompt > 0:
        raise ConfigError(
            f"data.max_images_per_prompt: expected 0, as CLIPO is for text alone, got {args.data.max_images_per_prompt}"
        )
