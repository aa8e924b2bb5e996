"""What processes tell each other. With one process, everything here is the identity.

Every process holds the whole batch of rollouts. Sampling, judging, and forward and backward passes are shared out, and
their results gathered, so that what follows reads as if there were one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from clipo_train.config import OptimizerConfig
from clipo_train.errors import ConfigError, NonFiniteError
from clipo_train.rollout import Generation

T = TypeVar("T")


def own_block(items: Sequence[T], accelerator: Accelerator) -> Sequence[T]:
    """This process's block of consecutive items, of as many as all others have."""
    size = len(items) // accelerator.num_processes
    return items[accelerator.process_index * size : (accelerator.process_index + 1) * size]


def own_share(rows: Tensor, accelerator: Accelerator) -> Tensor:
    """Every n-th row: of rows in order of length, n shares of about the same lengths."""
    return rows[accelerator.process_index :: accelerator.num_processes]


def gather_shares(values: Tensor, rows: Tensor, accelerator: Accelerator) -> Tensor:
    """What each process has computed for its share of `rows`, in the rows' own order."""
    processes = accelerator.num_processes
    gathered: Tensor = values if processes == 1 else accelerator.gather(values)
    place = torch.cat([rows[process::processes] for process in range(processes)])
    return torch.empty_like(gathered).index_copy_(0, place, gathered)


def gather_list(items: Sequence[T], accelerator: Accelerator) -> list[T]:
    """The items of all processes, in order of process."""
    return list(items) if accelerator.num_processes == 1 else list(gather_object(list(items)))


def gather_generation(generation: Generation, accelerator: Accelerator) -> Generation:
    """The sequences of all processes, padded alike."""
    if accelerator.num_processes == 1:
        return generation
    width = generation.response_mask.shape[1]
    own = torch.tensor([generation.tokens.shape[1] - width, width], device=generation.tokens.device)
    prompt, response = accelerator.gather(own.unsqueeze(0)).amax(0).tolist()

    whole = generation.padded(prompt, response)
    return Generation(
        accelerator.gather(whole.tokens),
        accelerator.gather(whole.attention_mask),
        accelerator.gather(whole.response_mask),
        gather_list(whole.texts, accelerator),
        accelerator.gather(whole.finished),
        None if whole.logprobs is None else accelerator.gather(whole.logprobs),
    )


def micro_batches(rows: Tensor, size: int, model: nn.Module, accelerator: Accelerator) -> Iterator[Tensor]:
    """Parts of `rows`, one after the other; gradients are exchanged in the backward pass of the last one only.

    DeepSpeed takes the optimizer's step in that pass too, and so is told which it is.
    """
    parts = rows.split(size)
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        accelerator.gradient_state.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(model):
            yield part


def require_finite(model: nn.Module, accelerator: Accelerator) -> None:
    """Refuses weights that are not finite on any process.

    Raises:
        NonFiniteError: Some are NaN or infinite.
    """
    finite = torch.stack(
        [local(weight).isfinite().all() for weight in model.parameters() if weight.requires_grad]
    ).all()
    broken = accelerator.reduce(finite.logical_not().long(), reduction="sum")
    if broken:
        raise NonFiniteError("policy: expected finite weights, got NaN or inf in them after an update")


def local(weight: Tensor) -> Tensor:
    """This process's part of a weight that may be sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def settle_launch(accelerator: Accelerator, config: OptimizerConfig) -> None:
    """Settings of `accelerate launch` that this trainer has fields of its own for, or that it cannot work with.

    Args:
        accelerator: Of the run, before it prepares anything.
        config: The optimizer's.

    Raises:
        ConfigError: Weights would not be there on every process when the policy is loaded.
    """
    # An update of all processes is one of the schedule's, not one for each process.
    accelerator.step_scheduler_with_optimizer = False
    deepspeed = accelerator.state.deepspeed_plugin
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if fsdp is not None and fsdp.cpu_ram_efficient_loading:
        raise ConfigError("fsdp_cpu_ram_efficient_loading: expected false in Accelerate's configuration, got true")
    if deepspeed is not None:
        unset_hf_deepspeed_config()  # else transformers would shard the policy before it is ready
        deepspeed.deepspeed_config |= {
            "gradient_accumulation_steps": 1,  # `micro_batches` accumulates
            "gradient_clipping": config.max_grad_norm,
            "train_micro_batch_size_per_gpu": config.micro_batch_size,
        }
    if fsdp is not None and fsdp.mixed_precision_policy is not None:
        # Else it would round the log-probabilities of a `ChunkedHead` to half precision.
        fsdp.mixed_precision_policy = replace(fsdp.mixed_precision_policy, output_dtype=None)
