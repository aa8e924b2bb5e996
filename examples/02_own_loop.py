"""GRPO+CLIPO in plain PyTorch, model and task included: a GRU learns to add two digits. Needs clipo_ops only.

    python examples/02_own_loop.py [--steps 200] [--weight 0.2]

The policy is warm-started on sums of which half are wrong, and then learns from a verifier. `--weight 0` is plain GRPO.
"""

import argparse
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clipo_ops import (
    GroupLayout,
    contrastive_loss,
    contrastive_reward,
    dapo_loss,
    grpo_advantages,
    mean_pool,
    token_logprobs,
)

PROMPTS, GROUP_SIZE, TOKENS, HIDDEN = 32, 8, 2, 64  # a response is the sum in two digits


class Policy(nn.Module):
    """Reads two digits and writes two."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(10, HIDDEN), nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, 10)

    def forward(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """The logits that predict the response's tokens, and the hidden states AT these tokens."""
        hidden, _ = self.gru(self.embedding(torch.cat([prompts, responses], 1)))
        return self.out(hidden[:, -TOKENS - 1 : -1]), hidden[:, -TOKENS:]

    @torch.no_grad()
    def sample(self, prompts: Tensor) -> Tensor:
        responses = prompts[:, :0]
        for _ in range(TOKENS):
            hidden, _ = self.gru(self.embedding(torch.cat([prompts, responses], 1)))
            drawn = torch.multinomial(self.out(hidden[:, -1]).softmax(1), 1)
            responses = torch.cat([responses, drawn], 1)
        return responses


def digits(number: Tensor) -> Tensor:
    return torch.stack([number // 10, number % 10], 1)


def verify(prompts: Tensor, responses: Tensor) -> Tensor:
    return (responses == digits(prompts.sum(1))).all(1)


def warm_start(policy: Policy, steps: int) -> None:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(steps):
        prompts = torch.randint(10, (256, 2))
        wrong = torch.rand(256) < 0.5
        target = digits(torch.where(wrong, torch.randint(19, (256,)), prompts.sum(1)))
        loss = cross_entropy(policy(prompts, target)[0].flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Step(NamedTuple):
    """What is worth a look."""

    accuracy: float
    contrastive: float


# --8<-- [start:step]
def train_step(policy: Policy, head: nn.Linear, optimizer: torch.optim.Optimizer, weight: float) -> Step:
    prompts = torch.randint(10, (PROMPTS, 2)).repeat_interleave(GROUP_SIZE, 0)
    responses = policy.sample(prompts)
    mask = torch.ones_like(responses, dtype=torch.bool)  # all responses have two tokens here
    groups = GroupLayout.from_size(len(prompts), GROUP_SIZE, device=prompts.device)
    success = verify(prompts, responses)

    # One forward gives the log-probabilities of the sampling policy, and CLIPO its hidden states.
    with torch.no_grad():
        logits, hidden = policy(prompts, responses)
        old_logprobs = token_logprobs(logits, responses)
    losses = contrastive_loss(head(mean_pool(hidden, mask)), success, groups, reduction="none")
    contrastive = contrastive_reward(losses, weight=weight, floor=-0.5)
    advantages = grpo_advantages(success.float() + contrastive, groups)

    logits, _ = policy(prompts, responses)
    policy_loss = dapo_loss(token_logprobs(logits, responses), old_logprobs, advantages, mask)
    optimizer.zero_grad()
    (policy_loss + losses.mean()).backward()  # the policy learns from the first term alone, the head from the second
    optimizer.step()
    return Step(success.float().mean().item(), contrastive.mean().item())


# --8<-- [end:step]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--weight", type=float, default=0.2)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    policy, head = Policy(), nn.Linear(HIDDEN, 32, bias=False)
    warm_start(policy, steps=300)
    optimizer = torch.optim.AdamW(chain(policy.parameters(), head.parameters()), lr=1e-3)
    for number in range(1, arguments.steps + 1):
        step = train_step(policy, head, optimizer, arguments.weight)
        if number == 1 or number % 40 == 0 or number == arguments.steps:
            print(f"step {number:3}  accuracy {step.accuracy:.2f}  contrastive reward {step.contrastive:+.2f}")


if __name__ == "__main__":
    main()
