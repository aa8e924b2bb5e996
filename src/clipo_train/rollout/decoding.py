"""Decoding for groups of rollouts: a prompt is read once for all of its samples, and an ended response costs no more.

`generate` of transformers reads a prompt once per sample, and goes on with every row until the longest has ended.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, TopPLogitsWarper

from clipo_train.errors import NonFiniteError
from clipo_train.rollout import Sampling, known_arguments, positions

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
    own_loop: bool = True,
) -> Int[Tensor, "rollouts tokens"]:
    """Continues each prompt `samples` times, with the tokens and the random numbers of `model.generate`.

    A model whose cache cannot be divided into rows, as of recurrent layers, is left to `model.generate` itself.

    A step draws for every row, also for those that have ended, so that a response does not depend on how long the
    others are.

    Args:
        model: A decoder.
        prompts: Padded on the left.
        attention_mask: 1 at the prompts' tokens, 0 at padding.
        samples: Responses to each prompt, as consecutive rows.
        sampling: How to draw, and for how long.
        end_ids: Tokens that end a response.
        pad_id: What follows them.
        in_step: As in `TransformersEngine`.
        own_loop: False leaves it to `model.generate`.

    Returns:
        The responses, padded on the right, as wide as the longest.

    Raises:
        NonFiniteError: A token's logits are NaN, so there is nothing to draw from.
    """
    by_generate = functools.partial(
        _generate, model, prompts, attention_mask, samples, sampling, end_ids=end_ids, pad_id=pad_id, in_step=in_step
    )
    if model._is_stateful or not own_loop:
        return by_generate()
    call: Any = model
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    last = known_arguments(model, logits_to_keep=1)
    place = known_arguments(model, position_ids=positions(attention_mask))
    output = call(input_ids=prompts, attention_mask=attention_mask, use_cache=True, **place, **last)
    cache: Any = getattr(output, name, None)
    if not _has_rows(cache):
        return by_generate()
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
            raise _not_finite(step + 1, sampling)
        if step + 1 == sampling.max_new_tokens or not (_anywhere(alive) if in_step else left):
            return responses[:, : step + 1]
        if left <= (1 - _WORTH_LEAVING_OUT) * len(alive):
            kept = alive.nonzero().squeeze(1)
            kept = kept if len(kept) else rows.new_zeros(1)  # others go on, and wait for this process in every layer
            cache.batch_select_indices(kept)
            rows, alive, drawn, mask = rows[kept], alive[kept], drawn[kept], mask[kept]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        if place:  # the model takes positions
            place = {"position_ids": mask.sum(1, keepdim=True) - 1}
        inputs = {"input_ids": drawn.unsqueeze(1), "attention_mask": mask, name: cache}
        logits = call(**inputs, use_cache=True, **place, **last).logits[:, -1]
    raise AssertionError("max_new_tokens is at least 1")


def _has_rows(cache: Any) -> bool:
    """Whether rows of a cache can be repeated and left out."""
    wanted = ("batch_repeat_interleave", "batch_select_indices")
    parts = [cache, *getattr(cache, "layers", [])]
    return all(hasattr(part, name) for part in parts for name in wanted)


def _generate(
    model: PreTrainedModel,
    prompts: Tensor,
    attention_mask: Tensor,
    samples: int,
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    pad_id: int,
    in_step: bool,
) -> Tensor:
    """`decode` by transformers' own loop."""
    drawn = sampling.temperature > 0
    chosen: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if drawn else {}
    config = GenerationConfig(
        do_sample=drawn,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(end_ids),
        pad_token_id=pad_id,
        **chosen,
    )

    def require_finite(tokens: Tensor, scores: Tensor) -> Tensor:
        if scores.isnan().any():
            raise _not_finite(tokens.shape[1] - prompts.shape[1] + 1, sampling)
        return scores

    generate: Any = model.generate
    sequences: Tensor = generate(
        prompts.repeat_interleave(samples, 0),
        attention_mask=attention_mask.repeat_interleave(samples, 0),
        generation_config=config,
        logits_processor=LogitsProcessorList([require_finite]),
        synced_gpus=in_step,
    )
    return sequences[:, prompts.shape[1] :]


def _not_finite(token: int, sampling: Sampling) -> NonFiniteError:
    return NonFiniteError(
        f"policy: expected finite logits, got NaN at response token {token}, sampled at temperature "
        f"{sampling.temperature:g}"
    )


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
