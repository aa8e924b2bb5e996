"""Runs `clipo` with an engine whose samples depend on the prompt alone: `seeded.py ARGUMENT...`.

Whoever samples for a prompt, and beside which others, it gets the same completions of a given policy, so that one
process and several train on the same batch.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from clipo_train import cli
from clipo_train.rollout import Generation, Sampling, loading
from clipo_train.rollout.transformers import TransformersEngine


class SeededEngine(TransformersEngine):
    """Samples for one prompt after the other, each with a seed of its own."""

    sharded = False

    def __init__(self, model: Any, *arguments: Any, **settings: Any) -> None:
        assert isinstance(model, FSDPModule) == self.sharded, "the policy is not as the test wants it"
        super().__init__(model, *arguments, **settings)

    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        parts, calls = [], torch.tensor(len(prompts))
        if self.in_step:  # as many calls as the others make
            torch.distributed.all_reduce(calls, torch.distributed.ReduceOp.MAX)
        for prompt in [*prompts, *[prompts[-1]] * (int(calls) - len(prompts))]:
            torch.manual_seed(sum((place + 1) * token for place, token in enumerate(prompt)))
            parts.append(super().generate([prompt], samples=samples, sampling=sampling))
        return _padded(parts[: len(prompts)])


def _padded(parts: Sequence[Generation]) -> Generation:
    response = max(part.response_mask.shape[1] for part in parts)
    prompt = max(part.tokens.shape[1] - part.response_mask.shape[1] for part in parts)

    def pad(part: Generation, values: torch.Tensor) -> torch.Tensor:
        own = part.response_mask.shape[1]
        left = prompt - (values.shape[1] - own) if values.shape[1] > own else 0
        return torch.nn.functional.pad(values, (left, response - own))

    return Generation(
        torch.cat([pad(part, part.tokens) for part in parts]),
        torch.cat([pad(part, part.attention_mask) for part in parts]),
        torch.cat([pad(part, part.response_mask) for part in parts]),
        [text for part in parts for text in part.texts],
        torch.cat([part.finished for part in parts]),
    )


def shard_on_cpu() -> None:
    """FSDP2 without a GPU: torch can, but Accelerate asks for it on accelerators only."""
    state = Accelerator(cpu=True).state
    PartialState().distributed_type = DistributedType.FSDP  # from which the trainer's Accelerator takes it
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--fsdp2" in sys.argv:
        sys.argv.remove("--fsdp2")
        shard_on_cpu()
        SeededEngine.sharded = True
    loading.TransformersEngine = SeededEngine  # type: ignore[misc]
    sys.exit(cli.main(sys.argv[1:]))
