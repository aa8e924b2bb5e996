"""One call of a public function on example inputs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import clipo_ops
from clipo_ops import GroupLayout, experimental

PUBLIC: dict[str, Any] = {
    name: getattr(module, name) for module in (clipo_ops, experimental) for name in module.__all__
}


class Case(NamedTuple):
    """One call: a public function, its tensor arguments by the name of an example, and its options."""

    op: str
    arguments: dict[str, str]
    options: dict[str, Any]

    @property
    def function(self) -> Any:
        return PUBLIC[self.op]

    def inputs(self, dtype: torch.dtype = torch.float32, rollouts: int = 12) -> dict[str, Any]:
        """Tensor arguments by keyword; random, the same ones at every call."""
        available = examples(dtype, rollouts)
        return {argument: available[name] for argument, name in self.arguments.items()}

    def __call__(self, inputs: dict[str, Any]) -> Any:
        return self.function(**inputs, **self.options)

    def __str__(self) -> str:
        names = [f"{k}={v}" for k, v in self.arguments.items() if k != v]
        options = [f"{k}={getattr(v, '__name__', v)}" for k, v in self.options.items()]
        return f"{self.op}({', '.join(names + options)})"


def case(op: str, arguments: str, **options: Any) -> Case:
    """`arguments` lists examples; "groups=layout" passes the example `layout` as `groups`."""
    pairs = [item.partition("=") for item in arguments.split()]
    return Case(op, {argument: name or argument for argument, _, name in pairs}, options)


def examples(dtype: torch.dtype, rollouts: int) -> dict[str, Any]:
    """All example tensors for a number of rollouts that is a multiple of 4.

    No two axes of a call have one size by chance: a dynamic graph would take it for a rule.
    """
    generator = torch.Generator().manual_seed(rollouts)
    length = rollouts // 2 + 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    place = torch.arange(rollouts)
    ids = place % (rollouts // 3)
    ids[0] = 99  # a singleton
    mask = torch.rand(rollouts, length, generator=generator) < 0.7
    mask[0], mask[1] = True, False
    candidates = (torch.arange(6) != 5).repeat(rollouts, 1)
    positives = candidates & (torch.arange(6) < place.unsqueeze(1) % 4 + 1)
    return {
        "hidden": normal(rollouts, length, 13),
        "mask": mask,
        "states": normal(rollouts, 11, 13),
        "logprobs": -normal(rollouts, length).abs(),
        "old_logprobs": -normal(rollouts, length).abs(),
        "ref_logprobs": -normal(rollouts, length).abs(),
        "log_ratio": normal(rollouts, length) / 2,
        "advantages": normal(rollouts),
        "token_advantages": normal(rollouts, length),
        "clipped": place.unsqueeze(1) % 3 > torch.arange(length) % 2,
        "weight": normal(17, 13),
        "bias": normal(17),
        "weights": normal(rollouts, length).relu(),
        "positions": place % (length + 1) - 1,
        "packed": normal(3 * rollouts, 13),
        "segment_ids": torch.arange(3 * rollouts) % 7 - 1,
        "process": place % 3 == 0,
        "logits": normal(rollouts, length, 17),
        "token_ids": torch.randint(0, 17, (rollouts, length), generator=generator),
        "denominator": torch.tensor(40.0),
        "rows": normal(rollouts, 6),
        "positives": positives,
        "one_positive": (place.unsqueeze(1) % 4) == torch.arange(6),
        "candidates": candidates,
        "embeddings": normal(rollouts, 13),
        "rewards": normal(rollouts),
        "loss": normal(rollouts).abs() * 3,
        "lengths": mask.sum(1),
        "group_tokens": mask.sum(1) + place % 3,
        "success": place % 5 < 3,
        "two_correct": place % 4 < 2,
        "ids": ids,
        "layout": GroupLayout.from_ids(ids),
        "ordered": GroupLayout.from_size(rollouts, 4, device="cpu"),
        "reversed": GroupLayout.from_ids(-(place // 4)),
        "signals": normal(rollouts, 2),
    }
