"""Policy workers with DeepSpeed's engine on a CPU, for Ray to start: OpenRLHF's own, but for what they ask of CUDA."""

import sys
from typing import Any

import deepspeed.ops.adam
import torch
from openrlhf.utils.deepspeed import deepspeed as strategy
from torch import Tensor

from clipo_train.adapters.openrlhf import ClipoPolicyActor


class Host(str):
    """A device that tensors can go to, and that `cuda:{device}` can name."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        return "0"


def answer_for_cuda() -> None:
    """Puts the host where OpenRLHF and DeepSpeed ask for a GPU, or would compile for one."""
    torch.cuda.set_device = lambda _: None
    torch.cuda.current_device = lambda: Host("cpu")
    torch.cuda.synchronize = lambda: None
    mesh = strategy.init_device_mesh
    strategy.init_device_mesh = lambda _, *args, **kwargs: mesh("cpu", *args, **kwargs)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    deepspeed.ops.adam.FusedAdam = lambda params, adam_w_mode, **kwargs: torch.optim.AdamW(params, **kwargs)


class HostPolicy(ClipoPolicyActor):
    """Initialised, asked, updated, saved and loaded by OpenRLHF's own methods."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        torch.set_num_threads(1)
        answer_for_cuda()

    def weights(self) -> Tensor:
        """Of the policy, one after the other."""
        return torch.cat([weight.detach().float().flatten() for weight in self.actor.model.parameters()])
