"""See the package above."""

import torch
from torch import Tensor, distributed


def all_gather(part: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """The parts of all processes, one after the other."""
    parts = [torch.empty_like(part) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts)
