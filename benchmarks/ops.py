"""Speed and memory of clipo_ops, each with its limit or peer in the same run.

`python benchmarks/ops.py [--rounds 30] [--output benchmarks/results/ops.json]`
"""

import argparse
import json
import math
from collections.abc import Callable

import torch
from harness import (
    Row,
    arguments_parser,
    extra_memory,
    in_fresh_process,
    keep_freed_buffers,
    publish,
    seconds,
    sized,
    time_side_by_side,
    timed,
)
from torch import Tensor
from torch.nn.functional import normalize

from clipo_ops import GroupLayout, aggregate, contrastive_loss, grpo_advantages, infonce, supcon_out

ROLLOUTS, SIZE, DIM = 8192, 16, 512


class Batch:
    """Embeddings in groups of one size, with ids both in order and shuffled."""

    def __init__(self, rollouts: int = ROLLOUTS, dim: int = DIM) -> None:
        torch.manual_seed(0)
        self.embeddings = torch.randn(rollouts, dim, requires_grad=True)
        self.success = torch.rand(rollouts) < 0.5
        self.layout = GroupLayout.from_size(rollouts, SIZE, device="cpu")
        self.ids = torch.arange(rollouts) // SIZE
        self.shuffled = self.ids[torch.randperm(rollouts)]

    def ours(
        self, groups: Tensor | GroupLayout, objective: Callable[..., Tensor] = infonce, scope: str = "group"
    ) -> object:
        """Forward and backward."""
        loss = contrastive_loss(self.embeddings, self.success, groups, objective=objective, scope=scope)
        return torch.autograd.grad(loss, self.embeddings)

    def autograd(self) -> object:
        """supcon_out by autograd over normalised embeddings, for equal groups in order."""
        z = normalize(self.embeddings, dim=1).view(-1, SIZE, DIM)
        right = self.success.view(-1, SIZE)
        other = ~torch.eye(SIZE, dtype=torch.bool)
        logits = (z @ z.mT / 0.05).masked_fill(~other, -math.inf)
        positives = right[:, :, None] & right[:, None, :] & other
        mean = logits.masked_fill(~positives, 0).sum(2) / positives.sum(2).clamp(min=1)
        anchors = positives.any(2) & ~right.all(1, keepdim=True)
        loss = (logits.logsumexp(2) - mean)[anchors].mean()
        return torch.autograd.grad(loss, self.embeddings)

    def official(self, scope: str = "group") -> object:
        """supcon_out with every matrix of rollouts x rollouts that the official code makes, in its order.

        Verdicts, groups and selves are matrices of numbers that multiply; both sums of exponentials are taken whatever
        the objective; the row's maximum (the anchor with itself) is taken off, and an epsilon keeps logarithms finite.
        """
        z = normalize(self.embeddings, dim=1)
        cosines = z @ z.T
        right = self.success.long()[:, None]
        itself = torch.eye(len(z))
        alike, everyone = (right == right.T).float(), torch.ones(len(z), len(z))
        if scope == "group":
            group = (self.ids[:, None] == self.ids).float()
            alike, everyone = alike * group, everyone * group
        some = ((alike - itself).sum(1) > 0) & ((everyone - alike).sum(1) > 0)
        alike, everyone = alike - itself, everyone - itself
        logits = cosines / 0.05
        logits = logits - logits.max(1, keepdim=True).values.detach()
        weights = logits.exp() * everyone
        (weights * alike).sum(1)
        normaliser = (weights.sum(1) + 1e-8).log()
        losses = -((logits - normaliser[:, None]) * alike).sum(1) / (alike.sum(1) + 1e-8)
        anchors = self.success.float() * some
        return torch.autograd.grad((losses * anchors).sum() / (anchors.sum() + 1e-8), self.embeddings)


def against_official(rounds: int) -> list[Row]:
    """Both scopes against the official code's formulation, in a process whose malloc is the usual one."""
    times = json.loads(in_fresh_process(__file__, "--times-against-official", str(max(3, rounds // 3))))
    what = f"contrastive_loss, forward and backward, {ROLLOUTS} x {DIM}, {{}}: supcon_out / official"
    wanted = {"group": 1 / 300, "batch": 0.5}
    return [
        timed(what.format(f"{scope} scope"), times[f"ours, {scope}"], times[f"official, {scope}"], limit)
        for scope, limit in wanted.items()
    ]


def times_against_official(rounds: int) -> dict[str, float]:
    batch = Batch()
    times: dict[str, float] = {}
    for scope in ("group", "batch"):
        candidates = {
            f"ours, {scope}": lambda scope=scope: batch.ours(batch.layout, supcon_out, scope),
            f"official, {scope}": lambda scope=scope: batch.official(scope),
        }
        times |= time_side_by_side(candidates, rounds=rounds)
    return times


def contrastive(rounds: int) -> list[Row]:
    """Against the bare products that equal groups need, and against other ways to write it."""
    batch = Batch()
    rows = batch.embeddings.detach().view(-1, SIZE, DIM).clone()
    gradient = torch.randn(ROLLOUTS // SIZE, SIZE, SIZE)

    def products() -> object:
        return rows @ rows.mT, gradient @ rows, gradient.mT @ rows

    times = time_side_by_side(
        {
            "three bare products": products,
            "equal groups": lambda: batch.ours(batch.layout),
            "shuffled ids": lambda: batch.ours(batch.shuffled),
            "equal groups, supcon_out": lambda: batch.ours(batch.layout, supcon_out),
            "autograd": batch.autograd,
        },
        rounds=rounds,
    )
    what = f"contrastive_loss, forward and backward, {ROLLOUTS} x {DIM}, groups of {SIZE}"
    bare = times["three bare products"]
    return [
        timed(f"{what}: equal groups / three bare products", times["equal groups"], bare, 1.5),
        timed(f"{what}: shuffled ids / three bare products", times["shuffled ids"], bare, 3.0),
        timed(f"{what}: supcon_out / plain autograd", times["equal groups, supcon_out"], times["autograd"], None),
    ]


def memory() -> list[Row]:
    """Extra peak memory, each in a fresh process."""
    size = ROLLOUTS * DIM * 4
    rows = []
    extras = {}
    limits = {"equal groups": 3.0, "shuffled ids": 3.0, "official": None}
    for name in (*limits, "batch scope", "batch scope, official", "batch scope, 65536 x 128"):
        extras[name] = int(in_fresh_process(__file__, "--memory-of", name))
    for name, wanted in limits.items():
        rows.append(sized(f"contrastive_loss, extra memory, {name} / the embeddings", extras[name], size, wanted))
    ours, pairs, large = (extra for name, extra in extras.items() if name not in limits)
    what = "contrastive_loss, batch scope, extra memory"
    return [
        *rows,
        sized(f"{what}: tiles / official", ours, pairs, 0.1),
        sized(f"{what}: 65536 x 128 / 2 GB", large, 2e9, 1.0),
    ]


def memory_of(name: str) -> int:
    """Extra memory of one forward and backward in this process, its threads and kernels being warm."""
    batch = Batch(65536, 128) if name.endswith("65536 x 128") else Batch()
    small = Batch(rollouts=8 * SIZE)
    ways: dict[str, Callable[[Batch], object]] = {
        "equal groups": lambda it: it.ours(it.layout, supcon_out),
        "shuffled ids": lambda it: it.ours(it.shuffled, supcon_out),
        "official": Batch.official,
        "batch scope": lambda it: it.ours(it.layout, supcon_out, "batch"),
        "batch scope, official": lambda it: it.official("batch"),
        "batch scope, 65536 x 128": lambda it: it.ours(it.layout, supcon_out, "batch"),
    }
    ways[name](small)
    return extra_memory(lambda: ways[name](batch))


def growth(rounds: int) -> list[Row]:
    """The exponent of time in the number of rollouts, from 256 to 65,536."""
    sizes = [256, 1024, 4096, 16384, 65536]
    batches = {count: Batch(count, 128) for count in sizes}
    rows = []
    for name in ("equal groups", "shuffled ids"):
        times = {}
        for count, batch in batches.items():
            groups = batch.layout if name == "equal groups" else batch.shuffled
            call = {"ours": lambda batch=batch, groups=groups: batch.ours(groups)}
            times[count] = time_side_by_side(call, rounds=rounds)["ours"]
        ratio = times[sizes[-1]] / times[sizes[-2]]
        what = f"contrastive_loss, dim 128, {name}: time at 65536 / at 16384 rollouts, where linear is 4"
        rows.append(Row(what, seconds(times[sizes[-1]]), seconds(times[sizes[-2]]), ratio, 4.6))
        what = f"contrastive_loss, dim 128, {name}: time at 65536 / at 256 rollouts, where linear is 256"
        rows.append(
            Row(what, seconds(times[sizes[-1]]), seconds(times[sizes[0]]), times[sizes[-1]] / times[256], 294.0)
        )
    return rows


def advantages(rounds: int) -> list[Row]:
    """Against the few lines that equal groups in order allow."""
    batch = Batch(dim=1)
    rewards = (torch.rand(ROLLOUTS) < 0.5).float()

    def view() -> Tensor:
        rows = rewards.view(-1, SIZE)
        return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)).view(-1)

    def build() -> Tensor:
        return grpo_advantages(rewards, GroupLayout.from_size(ROLLOUTS, SIZE, device="cpu"))

    times = time_side_by_side(
        {
            "view": view,
            "layout": lambda: grpo_advantages(rewards, batch.layout),
            "layout built each time": build,
            "shuffled ids": lambda: grpo_advantages(rewards, batch.shuffled),
        },
        rounds=20 * rounds,
    )
    wanted = {"layout": 2.0, "layout built each time": 2.0, "shuffled ids": 10.0}
    return [
        timed(f"grpo_advantages, {ROLLOUTS} rollouts: {name} / view(-1, {SIZE})", times[name], times["view"], limit)
        for name, limit in wanted.items()
    ]


def shape_checking(rounds: int) -> list[Row]:
    """Seconds that checking adds to a call, eager and compiled."""
    values, mask = torch.randn(4, 8), torch.ones(4, 8, dtype=torch.bool)
    plain = aggregate.__wrapped__  # type: ignore[attr-defined]
    compiled = {name: torch.compile(function, fullgraph=True) for name, function in (("on", aggregate), ("off", plain))}
    eager = {"eager": lambda: aggregate(values, mask), "eager, unchecked": lambda: plain(values, mask)}
    traced = {
        "compiled": lambda: compiled["on"](values, mask),
        "compiled, unchecked": lambda: compiled["off"](values, mask),
    }
    times = {
        name: time for pair in (eager, traced) for name, time in time_side_by_side(pair, rounds=100 * rounds).items()
    }
    added = times["eager"] - times["eager, unchecked"]
    limit = 100e-6
    return [
        Row("shape checking, added to a call / 100 microseconds", seconds(added), seconds(limit), added / limit, 1.0),
        timed("shape checking, compiled: checked / unchecked", times["compiled"], times["compiled, unchecked"], 1.1),
    ]


def main() -> None:
    parser = arguments_parser(__doc__, rounds=30)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--times-against-official", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(memory_of(arguments.memory_of))
        return
    if arguments.times_against_official:
        print(json.dumps(times_against_official(arguments.times_against_official)))
        return
    keep_freed_buffers()
    rounds = arguments.rounds
    rows = [
        *memory(),
        *contrastive(rounds),
        *against_official(rounds),
        *growth(max(5, rounds // 3)),
        *advantages(rounds),
        *shape_checking(rounds),
    ]
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
