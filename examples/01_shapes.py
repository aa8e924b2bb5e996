"""A walk through one step of CLIPO, from hidden states to a loss, printing what has which shape. Needs clipo_ops only.

python examples/01_shapes.py
"""

import torch

from clipo_ops import (
    GroupLayout,
    aggregate,
    clipped_surrogate,
    contrastive_anchors,
    contrastive_loss,
    contrastive_reward,
    grpo_advantages,
    log_ratio,
    mean_pool,
    supcon_out,
)

torch.manual_seed(0)
PROMPTS, GROUP_SIZE, TOKENS, HIDDEN, DIM = 2, 4, 6, 16, 8
ROLLOUTS = PROMPTS * GROUP_SIZE


def show(name: str, value: torch.Tensor, meaning: str) -> None:
    shape = " x ".join(map(str, value.shape)) or "scalar"
    print(f"{name:<13}{shape:<12}{str(value.dtype).removeprefix('torch.'):<9}{meaning}")


# What your trainer has already: responses of one to six tokens, their states and log-probabilities, and verdicts.
lengths = torch.randint(1, TOKENS + 1, (ROLLOUTS, 1))
mask = torch.arange(TOKENS) < lengths
old_logprobs = -torch.rand(ROLLOUTS, TOKENS)
logprobs = (old_logprobs + 0.1 * torch.randn(ROLLOUTS, TOKENS)).requires_grad_()
success = torch.tensor([True, True, True, False, True, True, True, True])
outcome = success.float()
hidden = torch.randn(ROLLOUTS, TOKENS, HIDDEN) + 2 * outcome[:, None, None]  # right ones have something in common
show("hidden", hidden, "last layer's states AT the response tokens")
show("mask", mask, "True where a token counts")
show("success", success, "the verifier's verdict, which need not be reward > 0")

# Which rollouts answer the same prompt: ids in any order, or a layout built once.
groups = GroupLayout.from_ids(torch.tensor([7, 7, 7, 7, 3, 3, 3, 3]))
show("members", groups.members, "groups x slots: which rollout stands where")

# One vector a rollout, by a head of your own.
head = torch.nn.Linear(HIDDEN, DIM, bias=False)
pooled = mean_pool(hidden, mask)
embeddings = head(pooled)
show("pooled", pooled, "their mean over valid tokens, taken in float32")
show("embeddings", embeddings, "of any length: the loss normalises them")

# Anchors: right rollouts with a right and a wrong one beside them. The second group has no wrong one.
anchors = contrastive_anchors(success, groups)
losses = contrastive_loss(embeddings, success, groups, objective=supcon_out, reduction="none")
show("anchors", anchors, f"{anchors.sum()} of {success.sum()} right ones")
show("losses", losses, "0 where there is no anchor: " + " ".join(f"{x:.2f}" for x in losses.tolist()))

# The loss trains the head; the reward is its clipped negative, without a gradient.
losses.sum().div(anchors.sum()).backward()
contrastive = contrastive_reward(losses, weight=0.2, floor=-0.5)
rewards = outcome + contrastive
advantages = grpo_advantages(rewards, groups)
show("contrastive", contrastive, "max(-0.2 loss, -0.5): " + " ".join(f"{x:.2f}" for x in contrastive.tolist()))
show("advantages", advantages, "per group: " + " ".join(f"{x:+.2f}" for x in advantages.tolist()))

# From here on it is your policy gradient; ours, per token, and the one function that reduces token losses.
ratio = log_ratio(logprobs, old_logprobs, mask)
surrogate = clipped_surrogate(ratio, advantages, epsilon_high=0.28)
loss = aggregate(surrogate.loss, mask, mode="token-mean")
loss.backward()
show("surrogate", surrogate.loss, f"per token; {surrogate.clipped[mask].float().mean():.0%} of them clipped")
show("loss", loss, f"{loss.item():.4f}")
