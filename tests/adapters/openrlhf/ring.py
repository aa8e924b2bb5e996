"""Run by torchrun: each process has a part of the packed tokens, as in OpenRLHF's ring attention."""

import os

import torch
from tiny_policy import put_on_cpu
from torch import distributed, nn

from clipo_ops import mean_pool
from clipo_train.adapters.openrlhf import ClipoPolicyActor

rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
distributed.init_process_group("gloo")
generator = torch.Generator().manual_seed(0)
attention = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])  # 11 tokens: the last part has padding
action = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
states = torch.randn(3, 5, 8, generator=generator)

packed = nn.functional.pad(states[attention.bool()], (0, 0, 0, -11 % processes), value=float("nan")).unsqueeze(0)
worker = ClipoPolicyActor(processes, rank, os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
put_on_cpu(worker, nn.Linear(1, 1), packing=True, ring=distributed.group.WORLD)
pooled = worker._pool(packed.chunk(processes, 1)[rank], action, attention)
torch.testing.assert_close(pooled, mean_pool(states[:, 1:], action.bool()))
distributed.destroy_process_group()
