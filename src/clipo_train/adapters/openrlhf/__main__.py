"""OpenRLHF's command line, `openrlhf.cli.train_ppo_ray`, with the classes of this package in place of its own."""

import runpy
import sys
from collections.abc import Sequence
from typing import Any

import openrlhf.utils
import ray
from openrlhf.trainer import ppo_trainer, ppo_trainer_async
from openrlhf.trainer.ray import ppo_actor

from clipo_train.adapters.openrlhf import ClipoPolicyActor, ClipoPPOTrainer, ClipoPPOTrainerAsync
from clipo_train.adapters.openrlhf.arguments import ClipoArguments, parse_arguments, require_supported
from clipo_train.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Runs it; 2 is the status where an argument cannot be, with one line about it."""
    try:
        clipo, others = parse_arguments(arguments)
        if clipo.config.enabled:
            _replace_classes(clipo)
        sys.argv = ["openrlhf.cli.train_ppo_ray", *others]
        runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
    except ConfigError as error:
        cause = getattr(error, "cause", error)  # what Ray raises for an error of another process has more lines
        sys.stderr.write(f"error: {cause}\n")
        return 2
    return 0


def _replace_classes(clipo: ClipoArguments) -> None:
    """OpenRLHF's command line imports these names when it runs, and sends what it finds to the other processes."""
    get_strategy = openrlhf.utils.get_strategy

    def with_clipo(args: Any) -> Any:
        require_supported(args, clipo)
        args.clipo = clipo
        return get_strategy(args)

    openrlhf.utils.get_strategy = with_clipo
    ppo_actor.PolicyModelActor = ray.remote(num_gpus=1)(ClipoPolicyActor)
    ppo_trainer.PPOTrainer = ray.remote(ClipoPPOTrainer)
    ppo_trainer_async.PPOTrainerAsync = ray.remote(ClipoPPOTrainerAsync)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
