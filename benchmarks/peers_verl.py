"""Ours next to verl's own code: `.venv-verl/bin/python benchmarks/peers_verl.py [--rounds 10]`, after `make test-verl`.

Advantages of 8192 rollouts in groups of 16, shuffled, from what names a group in each stack: a tensor of ids here, an
array of uuid strings in verl. And of 512 x 1024 tokens where time runs over tokens. verl has two versions of some
estimators: a loop over rollouts and a vectorised one, which is shown with integers for ids too (its trainer has none).
"""

import uuid
from collections.abc import Callable

import numpy as np
import torch
from harness import arguments_parser, keep_freed_buffers, publish, time_side_by_side, timed
from torch import Tensor
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.workers.config import ActorConfig

from clipo_ops import (
    GroupLayout,
    dapo_loss,
    gae_advantages,
    grpo_advantages,
    opo_advantages,
    reinforce_plus_plus_advantages,
    rloo_advantages,
    whiten,
)

Pair = tuple[Callable[[], object], Callable[[], object]]


def rollouts() -> dict[str, Pair]:
    """Rewards at the only token, so that verl does not pay for spreading advantages over tokens."""
    torch.manual_seed(0)
    rewards, groups = torch.randn(8192), (torch.arange(8192) // 16)[torch.randperm(8192)]
    column, mask, integers = rewards.unsqueeze(1), torch.ones(8192, 1), groups.numpy()
    uids = np.array([str(uuid.UUID(int=number)) for number in range(512)], dtype=object)[integers]
    lengths, layout = mask.sum(1).long(), GroupLayout.from_ids(groups)

    def verl(name: str, index: np.ndarray = uids) -> Callable[[], object]:
        return lambda: get_adv_estimator_fn(name)(token_level_rewards=column, response_mask=mask, index=index)

    return {
        "grpo_advantages / loop": (lambda: grpo_advantages(rewards, groups), verl("grpo")),
        "grpo_advantages / vectorised": (lambda: grpo_advantages(rewards, groups), verl("grpo_vectorized")),
        "grpo_advantages / vectorised, integers": (
            lambda: grpo_advantages(rewards, groups),
            verl("grpo_vectorized", integers),
        ),
        "grpo_advantages of a layout / vectorised": (lambda: grpo_advantages(rewards, layout), verl("grpo_vectorized")),
        "rloo_advantages / loop": (lambda: rloo_advantages(rewards, groups), verl("rloo")),
        "rloo_advantages / vectorised": (lambda: rloo_advantages(rewards, groups), verl("rloo_vectorized")),
        "opo_advantages / loop": (lambda: opo_advantages(rewards, lengths, groups), verl("opo")),
    }


def tokens() -> dict[str, Pair]:
    torch.manual_seed(0)
    shape = (512, 1024)
    rewards, values, old = torch.randn(shape), torch.randn(shape), -torch.rand(shape) * 3
    mask = torch.arange(shape[1]) < torch.randint(1, shape[1] + 1, (shape[0], 1))
    number, advantages = mask.float(), torch.randn(shape[0])
    leaf = (old + 0.1 * torch.randn(shape)).requires_grad_()
    config = ActorConfig(
        strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=1, clip_ratio_high=0.28, clip_ratio_c=1e9
    )

    def gae() -> Tensor:
        return whiten(gae_advantages(rewards, values, mask, gae_lambda=0.95).advantages, mask)

    def gradient(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), leaf)

    def vanilla() -> Tensor:
        spread = advantages.unsqueeze(1).expand(shape)
        return get_policy_loss_fn("vanilla")(old, leaf, spread, number, "token-mean", config)[0]

    return {
        "gae_advantages, whitened": (gae, lambda: get_adv_estimator_fn("gae")(rewards, values, number, 1.0, 0.95)),
        "reinforce_plus_plus_advantages": (
            lambda: reinforce_plus_plus_advantages(rewards, mask),
            lambda: get_adv_estimator_fn("reinforce_plus_plus")(rewards, number, config=AlgoConfig()),
        ),
        "dapo_loss, value and gradient": (gradient(lambda: dapo_loss(leaf, old, advantages, mask)), gradient(vanilla)),
    }


def main() -> None:
    arguments = arguments_parser(__doc__, rounds=10).parse_args()
    keep_freed_buffers()
    rows = {}
    for name, (ours, verl) in {**rollouts(), **tokens()}.items():
        times = time_side_by_side({"ours": ours, "verl": verl}, rounds=arguments.rounds)
        rows[name] = (times["ours"], times["verl"])
    limits = {name: 1.0 for name in rows if "integers" not in name}
    publish([timed(f"{name} / verl", *pair, limits.get(name)) for name, pair in rows.items()], arguments.output)


if __name__ == "__main__":
    main()
