"""Rollouts of all processes as one batch."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from clipo_ops._typing import shaped


@shaped
def gather_rollouts(
    values: Shaped[Tensor, "rollouts ..."], *, process_group: dist.ProcessGroup | None = None
) -> Shaped[Tensor, "_ ..."]:
    r"""The rollouts of all ranks, in order of rank: an all-gather through which gradients flow.

    $$V = [v_1; v_2; \dots; v_W], \qquad
    \frac{\partial}{\partial v_r} = \sum_{w=1}^{W} \Big(\frac{\partial L_w}{\partial V}\Big)_{\text{rows of } r}$$

    The gradient is that of the SUM over ranks of what each rank differentiates, $\sum_w L_w$. Hence two ways to get
    that of one process with the whole batch:

    - every rank takes the loss $L$ of the whole batch, so that the sum is $W L$, and gradients of weights are averaged
      over ranks, as `DistributedDataParallel` does. Without averaging, divide the loss by $W$.
    - every rank takes the losses of its own anchors only, over the number of anchors of all; the sum is $L$, and
      gradients of weights are added up over ranks. With averaging, multiply the loss by $W$.

    Ranks may have different numbers of rollouts. All of them must call this, and backward too, which adds up a
    gradient of the whole batch's size. Group ids are gathered like everything else and must be told apart across ranks
    unless they mean the same prompt; a group may then lie on several ranks. One process, without
    `torch.distributed`, gets its own rollouts back. With several, the host reads how many rollouts each rank has: call
    it outside a compiled region.

    Args:
        values: This rank's rollouts along the first axis; of any dtype and further axes, the same on all ranks.
        process_group: The ranks to gather from; all when None.

    Returns:
        The rollouts of all ranks, of the same dtype; with a gradient if `values` has one.

    Source:
        Contrastive learning over the batch of all devices (SimCLR, arXiv 2002.05709), with the adjoint of the gather
        written out: a gradient off by a factor of the number of ranks is what comes of leaving out the sum.

    Examples:
        >>> gather_rollouts(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    gathered: Tensor = _Gather.apply(values, process_group)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, process_group: dist.ProcessGroup | None) -> Tensor:
        ranks = dist.get_world_size(process_group)
        own = torch.tensor([len(values)], device=values.device)
        counts = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(counts, own, group=process_group)
        sizes = torch.cat(counts).tolist()
        ctx.process_group, ctx.dtype = process_group, values.dtype
        ctx.start = sum(sizes[: dist.get_rank(process_group)])
        ctx.rows = len(values)
        # Ranks send blocks of one size; bytes, because not every backend sends every dtype.
        block = values.new_zeros(max(sizes), *values.shape[1:])
        block[: len(values)] = values
        blocks = [torch.empty_like(block) for _ in range(ranks)]
        as_bytes = [x.view(torch.uint8) if x.dtype == torch.bool else x for x in (block, *blocks)]
        dist.all_gather(as_bytes[1:], as_bytes[0], group=process_group)
        return torch.cat([one[:size] for one, size in zip(blocks, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.process_group)
        return total[ctx.start : ctx.start + ctx.rows], None
