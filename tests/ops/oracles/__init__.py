"""The formula of every public function, one number at a time in float64, and the cases to try the function on.

Slow on purpose: plain loops over Python's numbers share nothing with the vectorised code under test. Each oracle has
the name of its function. Groups are always given by their ids.

A new function needs its oracle and a row in `CASES` in its family's module here; the tests of compilation, fake
tensors, dtypes and errors run over all rows.
"""

from ._common import *  # noqa: F403
from .advantages import *  # noqa: F403
from .contrastive import *  # noqa: F403
from .diagnostics import *  # noqa: F403
from .distributed import *  # noqa: F403
from .experimental import *  # noqa: F403
from .importance import *  # noqa: F403
from .logprobs import *  # noqa: F403
from .losses import *  # noqa: F403
from .masking import *  # noqa: F403
from .pooling import *  # noqa: F403
from .returns import *  # noqa: F403
from .rewards import *  # noqa: F403
from .surrogates import *  # noqa: F403
