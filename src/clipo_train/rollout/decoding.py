"""Decoding for groups of rollouts: a prompt is read once for all of its samples, and an ended response costs no more.

`generate` of transformers reads a prompt once per sample, and goes on with every row until the longest has ended.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, TopPLogitsWarper

from clipo_train.errors import NonFiniteError
from clipo_train.rollout import Sampling, positions

_WORTH_LEAVING_OUT = 1 / 8  # of the rows in a step, since what is cached of the others is copied then


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Int[Tensor, "prompts tokens"],
    attention_mask: Int[Tensor, "prompts tokens"],
    *,
    samples: int,
    sampling: Sampling,
    end_ids: Sequence[int],
    pad_id: int,
    in_step: bool = False,
) -> Int[Tensor, "rollouts tokens"]:
    """Continues each prompt `samples` times, with the tokens and the random numbers of `model.generate`.

    A step draws for every row, also for those that have ended, so that a response does not depend on how long the
    others are.

    Args:
        model: A decoder with a cache of keys and values.
        prompts: Padded on the left.
        attention_mask: 1 at the prompts' tokens, 0 at padding.
        samples: Responses to each prompt, as consecutive rows.
        sampling: How to draw, and for how long.
        end_ids: Tokens that end a response.
        pad_id: What follows them.
        in_step: As in `TransformersEngine`.

    Returns:
        The responses, padded on the right, as wide as the longest.

    Raises:
        NonFiniteError: A token's logits are NaN, so there is nothing to draw from.
    """
    call: Any = model
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    output = call(
        input_ids=prompts,
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = output[name]
    cache.batch_repeat_interleave(samples)
    logits, mask = (each.repeat_interleave(samples, 0) for each in (output.logits[:, -1], attention_mask))
    ends = torch.tensor(list(end_ids), device=mask.device)
    rows = torch.arange(len(mask), device=mask.device)  # that are computed still
    alive = torch.ones_like(rows, dtype=torch.bool)
    broken = torch.zeros((), dtype=torch.long, device=mask.device)
    responses = torch.full((len(mask), sampling.max_new_tokens), pad_id, device=mask.device)
    for step in range(sampling.max_new_tokens):
        weight, drawn = _draw(logits, rows, len(responses), sampling)
        broken = broken | (weight.isnan() & alive).any()
        responses[rows, step] = torch.where(alive, drawn, pad_id)
        alive = alive & torch.isin(drawn, ends).logical_not()
        left, failed = torch.stack([alive.sum(), broken]).tolist()  # one wait for the device
        if failed:
            raise NonFiniteError(
                f"policy: expected finite logits, got NaN at response token {step + 1}, sampled at temperature "
                f"{sampling.temperature:g}"
            )
        if step + 1 == sampling.max_new_tokens or not (_anywhere(alive) if in_step else left):
            return responses[:, : step + 1]
        if left <= (1 - _WORTH_LEAVING_OUT) * len(alive):
            kept = alive.nonzero().squeeze(1)
            kept = kept if len(kept) else rows.new_zeros(1)  # others go on, and wait for this process in every layer
            cache.batch_select_indices(kept)
            rows, alive, drawn, mask = rows[kept], alive[kept], drawn[kept], mask[kept]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        place = mask.sum(1, keepdim=True) - 1
        inputs = {"input_ids": drawn.unsqueeze(1), "attention_mask": mask, "position_ids": place, name: cache}
        logits = call(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1]
    raise AssertionError("max_new_tokens is at least 1")


def _draw(logits: Tensor, rows: Tensor, count: int, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The next token of each of `rows`, as `torch.multinomial` draws it for all `count`, and its weight in the draw.

    The weight is NaN where a logit is.
    """
    scores = logits.float()
    if sampling.temperature == 0:
        return scores.max(-1)
    scores = scores / sampling.temperature
    if sampling.top_p < 1:
        warped: Any = TopPLogitsWarper(sampling.top_p)
        scores = warped(None, scores)
    noise = scores.new_empty(count, scores.shape[1]).exponential_()
    return (scores.softmax(-1) / (noise if len(rows) == count else noise[rows])).max(-1)


def _anywhere(alive: Tensor) -> bool:
    """Whether a row of any process goes on."""
    going = alive.any().long()
    torch.distributed.all_reduce(going, torch.distributed.ReduceOp.MAX)
    return bool(going)
