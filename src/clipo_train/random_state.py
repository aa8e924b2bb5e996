"""The state of everything random in a process, of kinds that `torch.load(..., weights_only=True)` reads."""

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

_log = logging.getLogger(__name__)


def random_state() -> dict[str, Any]:
    """Of Python's, NumPy's and torch's generators, and of that of the process's GPU if it has one."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the state is the process's
    numpy["state"]["key"] = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda}


def restore_random_states(states: Sequence[dict[str, Any]], accelerator: Accelerator, *, seed: int) -> None:
    """Puts every process where the one of its number was.

    Args:
        states: Of each process, by its number.
        accelerator: Of the processes that there are now.
        seed: Where there are more or fewer of them than there were, all begin anew from this.
    """
    if len(states) != accelerator.num_processes:
        _log.warning(
            "resume: expected the checkpoint's %d processes, got %d: the run goes on, but to other numbers",
            *(len(states), accelerator.num_processes),
        )
        set_seed(seed, device_specific=True)
        return
    state = states[accelerator.process_index]
    random.setstate(state["python"])
    state["numpy"]["state"]["key"] = state["numpy"]["state"]["key"].numpy()
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
