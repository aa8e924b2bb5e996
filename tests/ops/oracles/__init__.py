"""The formulas of every public function, one number at a time in float64.

Slow on purpose: plain loops over Python's numbers share nothing with the vectorised code under test. Each oracle has
the name of its function. Groups are always given by their ids.
"""

from ._common import *  # noqa: F403
from .advantages import *  # noqa: F403
from .combination import *  # noqa: F403
from .contrastive import *  # noqa: F403
from .covariance_surrogates import *  # noqa: F403
from .diagnostics import *  # noqa: F403
from .distributed import *  # noqa: F403
from .experimental import *  # noqa: F403
from .importance import *  # noqa: F403
from .logprobs import *  # noqa: F403
from .losses import *  # noqa: F403
from .pooling import *  # noqa: F403
from .reductions import *  # noqa: F403
from .returns import *  # noqa: F403
from .rewards import *  # noqa: F403
from .rollout_correction import *  # noqa: F403
from .sequence_surrogates import *  # noqa: F403
from .surrogates import *  # noqa: F403
from .weighted_surrogates import *  # noqa: F403
