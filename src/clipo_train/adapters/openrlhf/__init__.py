"""CLIPO inside OpenRLHF: its PPO trainers as they are, with the contrastive reward added before advantages are taken.

python -m clipo_train.adapters.openrlhf --clipo.weight 0.2 ...   # and the arguments of openrlhf.cli.train_ppo_ray
"""

import warnings
from importlib.metadata import version

TESTED = "0.11.2"
"""The version of OpenRLHF that this is tested with."""

try:
    found = version("openrlhf")
    from clipo_train.adapters.openrlhf.arguments import ClipoArguments, parse_arguments
    from clipo_train.adapters.openrlhf.experience import ClipoExperienceMaker
    from clipo_train.adapters.openrlhf.policy import ClipoPolicyActor
    from clipo_train.adapters.openrlhf.trainers import ClipoMixin, ClipoPPOTrainer, ClipoPPOTrainerAsync
except ImportError as error:
    raise ImportError(
        f"clipo_train.adapters.openrlhf: expected OpenRLHF, got {error}; pip install 'clipo[openrlhf]'"
    ) from error

if found != TESTED:
    warnings.warn(f"clipo_train.adapters.openrlhf: tested with OpenRLHF {TESTED}, got {found}", stacklevel=2)

__all__ = [
    "ClipoArguments",
    "ClipoExperienceMaker",
    "ClipoMixin",
    "ClipoPPOTrainer",
    "ClipoPPOTrainerAsync",
    "ClipoPolicyActor",
    "parse_arguments",
]
