"""Speed of surrogate and reduction, forward and backward, against the arithmetic of TRL 1.16's loss of the same name.

`python benchmarks/surrogates.py [--rounds 100] [--compiled] [--output benchmarks/results/surrogates.json]`

The other side is what TRL's trainer computes from log-ratio, advantages and an integer mask, written anew without its
metrics; it clamps no ratio, returns no clip indicator and lets NaN through the mask. (TRL's code itself, which must do
more, is in peers_trl.py; the limit is there.) `--compiled` adds ours under `torch.compile` against the least that
forward and backward can take: each reads log-probabilities, old ones and the mask once, and writes its result. VESPO
reads them twice forward: a response's weight is known only at its end.
"""

from collections.abc import Callable
from functools import partial

import torch
from harness import arguments_parser, keep_freed_buffers, publish, time_side_by_side, timed
from torch import Tensor

from clipo_ops import (
    aggregate,
    cispo_surrogate,
    clipped_surrogate,
    geometric_mean_surrogate,
    sapo_surrogate,
    sequence_log_ratio,
    vespo_surrogate,
)

ROLLOUTS, TOKENS = 512, 1024
Loss = Callable[[Tensor], Tensor]


class Batch:
    """Log-probabilities of responses of any length, and per-rollout advantages."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.logprobs = -torch.rand(ROLLOUTS, TOKENS) * 3
        self.old = self.logprobs + torch.randn(ROLLOUTS, TOKENS) * 0.1
        self.advantages = torch.randn(ROLLOUTS)
        self.mask = torch.arange(TOKENS) < torch.randint(1, TOKENS + 1, (ROLLOUTS, 1))
        self.integer_mask = self.mask.long()


def ours(batch: Batch) -> dict[str, Loss]:
    """From the log-ratio on, as the other side."""
    a, mask = batch.advantages, batch.mask

    def of_column(loss: Tensor, *, by_length: bool = False) -> Tensor:
        """Of a loss that is the same at all tokens of a response."""
        lengths = mask.sum(1, keepdim=True, dtype=torch.int32)
        return aggregate(lengths * loss if by_length else loss, lengths > 0, mode="seq-mean-token-sum")

    def sequence(x: Tensor) -> Tensor:
        ratio = sequence_log_ratio(x - batch.old, mask).unsqueeze(1)
        return clipped_surrogate(ratio, a, epsilon_low=3e-4, epsilon_high=4e-4).loss

    def clipped(d: Tensor, mode: str, denominator: float | None = None) -> Tensor:
        return aggregate(clipped_surrogate(d, a).loss, mask, mode=mode, denominator=denominator)

    return {
        "grpo": lambda x: clipped(x - batch.old, "seq-mean-token-mean"),
        "dr_grpo": lambda x: clipped(x - batch.old, "seq-mean-token-sum-norm", ROLLOUTS * TOKENS),
        "dapo": lambda x: clipped(x - batch.old, "token-mean"),
        "grpo with delta": lambda x: aggregate(
            clipped_surrogate(x - batch.old, a, delta=4.0).loss, mask, mode="seq-mean-token-mean"
        ),
        "gspo": lambda x: of_column(sequence(x)),
        "luspo": lambda x: of_column(sequence(x), by_length=True),
        "gmpo": lambda x: of_column(geometric_mean_surrogate(x - batch.old, a, mask).loss[:, :1]),
        "cispo": lambda x: aggregate(cispo_surrogate(x, x.detach() - batch.old, a).loss, mask, mode="token-mean"),
        "sapo": lambda x: aggregate(sapo_surrogate(x - batch.old, a).loss, mask, mode="seq-mean-token-mean"),
        "vespo": lambda x: aggregate(vespo_surrogate(x, x.detach() - batch.old, a, mask).loss, mask, mode="token-mean"),
    }


def theirs(batch: Batch) -> dict[str, Loss]:
    """TRL's arithmetic."""
    a, old, mask = batch.advantages.unsqueeze(1), batch.old, batch.integer_mask

    def token_mean(loss: Tensor) -> Tensor:
        return (loss * mask).sum() / mask.sum().clamp(min=1.0)

    def sequence_mean(loss: Tensor) -> Tensor:
        return ((loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()

    def clipped(ratio: Tensor, low: float = 0.2, high: float = 0.2, delta: float | None = None) -> Tensor:
        bounded = ratio.clamp(1 - low, 1 + high)
        free = ratio if delta is None else ratio.clamp(max=delta)
        return -torch.min(free * a, bounded * a)

    def sequence_clipped(x: Tensor) -> Tensor:
        mean = ((x - old) * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
        return clipped(mean.unsqueeze(-1).exp(), 3e-4, 4e-4)

    def geometric(x: Tensor) -> Tensor:
        d = x - old
        bounded = d.clamp(-0.4, 0.4)
        chosen = torch.where(a > 0, torch.minimum(d, bounded), torch.maximum(d, bounded))
        return (-((chosen * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).exp() * batch.advantages).mean()

    def gate(x: Tensor) -> Tensor:
        tau = torch.where(a > 0, 1.0, 1.05)
        return -(torch.sigmoid(tau * ((x - old).exp() - 1)) * 4 / tau) * a

    def bump(x: Tensor) -> Tensor:
        with torch.no_grad():
            log_w = ((x - old).clamp(-20.0, 20.0) * mask).sum(-1, keepdim=True).clamp(-18.42, 20.0)
            k, lam = torch.where(a >= 0, 2.0, 3.0), torch.where(a >= 0, 3.0, 2.0)
            weight = (lam + k * log_w - lam * log_w.exp()).exp().nan_to_num(nan=0.0, posinf=0.0)
        return -weight * a * x

    return {
        "grpo": lambda x: sequence_mean(clipped((x - old).exp())),
        "dr_grpo": lambda x: (clipped((x - old).exp()) * mask).sum() / (ROLLOUTS * TOKENS),
        "dapo": lambda x: token_mean(clipped((x - old).exp())),
        "grpo with delta": lambda x: sequence_mean(clipped((x - old).exp(), delta=4.0)),
        "gspo": lambda x: sequence_mean(sequence_clipped(x)),
        "luspo": lambda x: (sequence_clipped(x) * mask).sum(-1).mean(),
        "gmpo": geometric,
        "cispo": lambda x: token_mean(-(x - old).exp().clamp(max=5.0).detach() * a * x),
        "sapo": lambda x: sequence_mean(gate(x)),
        "vespo": lambda x: token_mean(bump(x)),
    }


def step(loss: Loss, logprobs: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    leaf = logprobs.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf), leaf)


def main() -> None:
    parser = arguments_parser(__doc__, rounds=100)
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    keep_freed_buffers()
    batch = Batch()
    mine, other = ours(batch), theirs(batch)
    result = torch.empty_like(batch.old)

    def passes(count: int) -> None:
        for _ in range(count):
            torch.sub(batch.logprobs, batch.old, out=result)
            batch.mask.sum()

    rows = []
    for name in mine:
        torch.testing.assert_close(mine[name](batch.logprobs), other[name](batch.logprobs), rtol=1e-4, atol=1e-6)
        calls = {"ours": step(mine[name], batch.logprobs), "other": step(other[name], batch.logprobs)}
        times = time_side_by_side(calls, rounds=arguments.rounds)
        rows.append(timed(f"{name}, eager / TRL's arithmetic", times["ours"], times["other"]))
        if arguments.compiled:
            compiled = step(torch.compile(mine[name], fullgraph=True), batch.logprobs)
            forward = 2 if name == "vespo" else 1
            least = partial(passes, forward + 1)  # and one back, which autograd keeps apart
            times = time_side_by_side({"ours": compiled, "least": least}, rounds=arguments.rounds)
            what = f"{name}, compiled / {'two passes' if forward == 2 else 'a pass'} forward and one back"
            rows.append(timed(what, times["ours"], times["least"], 1.5))
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
