"""Time and memory of `linear_token_logprobs` at a real vocabulary, next to plain logits, Liger and TRL.

`python benchmarks/logprobs.py [--rounds 5] [--dtype float32] [--output benchmarks/results/logprobs.json]`

Liger and TRL have rows where they can be imported. Forward and backward, to the hidden states and the head's weight, of
log-probabilities that each have a gradient of their own. Ours gives the entropy too; TRL is asked for both and for one.
Ours is a dial between time and memory, `keep_logits`: the limit on both is to be met at one place of it.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import torch
from harness import (
    Row,
    arguments_parser,
    extra_memory,
    in_fresh_process,
    keep_freed_buffers,
    publish,
    sized,
    time_side_by_side,
    timed,
)
from torch import Tensor

from clipo_ops import linear_token_logprobs

VOCAB, HIDDEN, TOKENS = 151_936, 896, 2048
LIMIT = 1.1  # of the best other
KEPT = 0.6  # of the logits, which is what that limit leaves room for
OURS = ("ours", f"ours, {KEPT:.0%} of the logits kept", "ours, all kept")  # the limit is for the second


class Batch:
    """Hidden states, a head, tokens, and the gradient of their log-probabilities."""

    def __init__(self, dtype: torch.dtype, tokens: int = TOKENS, vocab: int = VOCAB) -> None:
        torch.manual_seed(0)
        self.hidden = torch.randn(1, tokens, HIDDEN).to(dtype).requires_grad_()
        self.weight = (torch.randn(vocab, HIDDEN) / 20).to(dtype).requires_grad_()
        self.token_ids = torch.randint(vocab, (1, tokens))
        self.gradient = torch.randn(tokens)

    def step(self, logprobs: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((logprobs.flatten() * self.gradient).sum(), [self.hidden, self.weight])


def ours(batch: Batch, keep_logits: float) -> object:
    inputs = batch.hidden, batch.weight, batch.token_ids
    return batch.step(linear_token_logprobs(*inputs, keep_logits=keep_logits).logprobs)


def plain(batch: Batch) -> object:
    """All logits, as a model gives them."""
    logits = (batch.hidden @ batch.weight.mT).float()
    chosen = logits.gather(-1, batch.token_ids.unsqueeze(2)).squeeze(2)
    return batch.step(chosen - logits.logsumexp(-1))


def plain_with_entropy(batch: Batch) -> object:
    """The same, and the entropy without a gradient, as a trainer logs it."""
    logits = (batch.hidden @ batch.weight.mT).float()
    chosen = logits.gather(-1, batch.token_ids.unsqueeze(2)).squeeze(2)
    normaliser = logits.logsumexp(-1)
    with torch.no_grad():
        log_probabilities = logits - normaliser.unsqueeze(2)
        entropy = -torch.linalg.vecdot(log_probabilities.exp(), log_probabilities)
    return batch.step(chosen - normaliser), entropy


def ways() -> dict[str, Callable[[Batch], object]]:
    """What can be measured here."""
    found: dict[str, Callable[[Batch], object]] = {
        **{name: partial(ours, keep_logits=share) for name, share in zip(OURS, (0.0, KEPT, 1.0), strict=True)},
        "plain logits, with entropy": plain_with_entropy,
        "plain logits": plain,
    }
    try:
        from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOLoss
    except ImportError:
        pass
    else:
        found["Liger"] = lambda batch: liger(batch, LigerFusedLinearGRPOLoss)
    try:
        from trl.kernels import ChunkedLogProbFunction
        from trl.trainer import utils
    except ImportError:
        return found

    def trl(batch: Batch, outputs: tuple[str, ...]) -> object:
        rows = batch.hidden.flatten(0, 1), batch.weight, None, batch.token_ids.flatten()
        chunk_size = utils._CHUNKED_LOGPROB_CHUNK_SIZE
        return batch.step(ChunkedLogProbFunction.apply(*rows, 1.0, chunk_size, None, 1.0, outputs)[0])

    found["TRL"] = lambda batch: trl(batch, ())
    found["TRL, with entropy"] = lambda batch: trl(batch, ("entropy",))
    return found


def liger(batch: Batch, loss_class: Callable[..., Callable[..., tuple[Tensor, object]]]) -> object:
    """Liger's chunked GRPO loss without a reference policy or compiler: it gives a loss, not log-probabilities."""
    loss, _ = loss_class(beta=0.0, use_ref_model=False, compiled=False)(
        batch.hidden, batch.weight, batch.token_ids, torch.ones_like(batch.token_ids), batch.gradient[:1]
    )
    return torch.autograd.grad(loss, [batch.hidden, batch.weight])


def memory_in_a_fresh_process(name: str, dtype: str) -> int:
    return int(in_fresh_process(__file__, "--dtype", dtype, "--memory-of", name).splitlines()[-1])


def memory_of(name: str, dtype: torch.dtype) -> int:
    """Extra memory of one step in this process, its threads and kernels being warm."""
    function, batch = ways()[name], Batch(dtype)
    function(Batch(dtype, tokens=8, vocab=64))
    return extra_memory(lambda: function(batch))


def main() -> None:
    parser = arguments_parser(__doc__, rounds=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    if arguments.memory_of:
        print(memory_of(arguments.memory_of, dtype))
        return
    keep_freed_buffers()
    memory = {name: memory_in_a_fresh_process(name, arguments.dtype) for name in ways()}
    batch = Batch(dtype)
    calls = {name: lambda function=function: function(batch) for name, function in ways().items()}
    times = time_side_by_side(calls, rounds=arguments.rounds)
    what = f"linear_token_logprobs, {TOKENS} tokens, {VOCAB} words, hidden {HIDDEN}, {arguments.dtype}"
    publish([*against(what, "time", times, timed), *against(what, "memory", memory, sized)], arguments.output)


def against(what: str, kind: str, values: Mapping[str, float], compare: Callable[..., Row]) -> list[Row]:
    """Ours against each other; the limit is the best of them, in time of those that give the entropy too."""
    others = {name: value for name, value in values.items() if name not in OURS}
    best = min((name for name in others if kind == "memory" or "entropy" in name), key=others.__getitem__)
    return [
        compare(
            f"{what}, {kind}: {mine} / {name}", values[mine], value, LIMIT if (mine, name) == (OURS[1], best) else None
        )
        for mine in OURS
        for name, value in others.items()
        if mine == OURS[1] or name == best
    ]


if __name__ == "__main__":
    main()
