"""Ours next to TRL's own code: `.venv-trl/bin/python benchmarks/peers_trl.py [--rounds 50]`, after `make test-peers`.

Advantages against the lines of its trainer, with its `nanstd`, which want equal groups in order. Losses against its
whole `_compute_loss`, metrics and all, from log-probabilities to their gradient.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import arguments_parser, keep_freed_buffers, publish, time_side_by_side, timed
from torch import Tensor
from trl.trainer.utils import nanstd

sys.path.append(str(Path(__file__).parents[1]))

from clipo_ops import (
    GroupLayout,
    cispo_loss,
    dapo_loss,
    dr_grpo_loss,
    gmpo_loss,
    grpo_advantages,
    grpo_loss,
    gspo_loss,
    luspo_loss,
    sapo_loss,
    vespo_loss,
)
from tests.parity.batches import Tokens
from tests.parity.trl_stub import GMPOTrainer, trainer

TOKENS = 1024
SEQUENCE = {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}

# Ours with the papers' defaults, and TRL's settings that come to the same.
LOSSES: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "grpo": (grpo_loss, {"loss_type": "grpo"}),
    "dr_grpo": (partial(dr_grpo_loss, max_length=TOKENS), {"loss_type": "dr_grpo", "max_completion_length": TOKENS}),
    "dapo": (dapo_loss, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (gspo_loss, {"loss_type": "grpo", **SEQUENCE}),
    "luspo": (luspo_loss, {"loss_type": "luspo", **SEQUENCE}),
    "gmpo": (gmpo_loss, {"cls": GMPOTrainer, "epsilon": 0.4}),
    "cispo": (cispo_loss, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "sapo": (sapo_loss, {"loss_type": "sapo"}),
    "vespo": (vespo_loss, {"loss_type": "vespo"}),
}


def advantages(rounds: int) -> dict[str, tuple[float, float]]:
    rewards, size = (torch.rand(8192) < 0.5).float(), 16
    layout = GroupLayout.from_size(len(rewards), size, device="cpu")
    ids = (torch.arange(len(rewards)) // size)[torch.randperm(len(rewards))]

    def theirs() -> Tensor:
        rows = rewards.view(-1, size)
        mean = torch.nanmean(rows, dim=1).repeat_interleave(size, dim=0)
        return torch.nan_to_num((rewards - mean) / (nanstd(rows, dim=1).repeat_interleave(size, dim=0) + 1e-4), nan=0.0)

    torch.testing.assert_close(grpo_advantages(rewards, layout, eps=1e-4), theirs(), rtol=1e-4, atol=1e-4)
    calls = {
        "TRL": theirs,
        "layout": lambda: grpo_advantages(rewards, layout),
        "shuffled ids": lambda: grpo_advantages(rewards, ids),
    }
    times = time_side_by_side(calls, rounds=20 * rounds)
    return {
        f"grpo_advantages, 8192 rollouts, {name}": (times[name], times["TRL"]) for name in ("layout", "shuffled ids")
    }


def batch(rollouts: int = 512, tokens: int = TOKENS) -> Tokens:
    torch.manual_seed(0)
    logprobs = -torch.rand(rollouts, tokens) * 3
    mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (rollouts, 1))
    return Tokens(logprobs, logprobs + torch.randn_like(logprobs) * 0.1, torch.randn(rollouts), mask, -logprobs)


def trls(tokens: Tokens, leaf: Tensor, settings: dict[str, Any]) -> Callable[[], Any]:
    """Value and gradient by TRL's trainer, made once."""
    self = trainer(**settings)
    self._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, tokens.entropy, None)
    ids, mask = torch.zeros(leaf.shape, dtype=torch.long), tokens.mask.long()
    prompt = {"prompt_ids": ids[:, :1], "prompt_mask": torch.ones_like(ids[:, :1])}
    completion = {"completion_ids": ids, "completion_mask": mask, "num_items_in_batch": mask.sum()}
    given = {"advantages": tokens.advantages, "old_per_token_logps": tokens.old_logprobs, **prompt, **completion}

    def step() -> tuple[Tensor, Tensor]:
        loss = self._compute_loss(None, given)
        return loss, torch.autograd.grad(loss, leaf)[0]

    return step


def losses(rounds: int) -> dict[str, tuple[float, float]]:
    tokens = batch()
    leaf, rows = tokens.logprobs.clone().requires_grad_(), {}
    for name, (function, settings) in LOSSES.items():

        def ours(function: Callable[..., Tensor] = function) -> tuple[Tensor, Tensor]:
            loss = function(leaf, tokens.old_logprobs, tokens.advantages, tokens.mask)
            return loss, torch.autograd.grad(loss, leaf)[0]

        peer = trls(tokens, leaf, settings)
        torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-5)
        times = time_side_by_side({"ours": ours, "TRL": peer}, rounds=rounds)
        rows[f"{name}_loss, 512 x 1024, value and gradient"] = (times["ours"], times["TRL"])
    return rows


def main() -> None:
    arguments = arguments_parser(__doc__, rounds=50).parse_args()
    keep_freed_buffers()
    rows = [timed(f"{name} / TRL", *pair) for name, pair in advantages(arguments.rounds).items()]
    rows += [timed(f"{name} / TRL", *pair, 1.0) for name, pair in losses(arguments.rounds).items()]
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
