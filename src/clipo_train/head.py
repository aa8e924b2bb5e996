"""The contrastive head: hidden states in, contrastive rewards out, one optimizer step a call, more in its warm-up."""

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import clipo_ops
from clipo_ops import (
    GroupLayout,
    Objective,
    clamp_fraction,
    contrastive_anchors,
    contrastive_loss,
    contrastive_reward,
    group_similarity,
)
from clipo_train.config import ClipoConfig
from clipo_train.errors import ConfigError


class ClipoHead:
    r"""A small map of pooled hidden states, trained by the contrastive loss whose negative is the reward.

    $$z_i = W h_i, \quad r_i = \max(-\lambda L_i(z),\, r_{\min}), \quad W \leftarrow \text{AdamW}(W, \nabla_W \bar L)$$

    It owns the map, its optimizer, its random draws and its warm-up, and so is all that a trainer needs:

        head = ClipoHead(model.config.hidden_size, config, device=device)
        rewards = outcome + head.step(pooled, success, groups)

    Where groups are spread over processes, pass the gathered batch on all of them: equal seeds and equal inputs keep
    the replicas equal.

    Attributes:
        metrics: Of the last step, before its update: loss, anchor_fraction, clamp_fraction (of anchors at the floor),
            similarity_positive and similarity_negative; those without an anchor or a pair to measure are absent.
        steps: Calls of `step`.

    Args:
        hidden_size: Size of the pooled hidden states.
        config: Its hyperparameters.
        seed: Of the initial weights and the sampled positives; the global generator is left alone.
        device: Where the hidden states will be.
    """

    def __init__(self, hidden_size: int, config: ClipoConfig, *, seed: int = 0, device: torch.device | str) -> None:
        self.config = config
        self.generator = torch.Generator(device).manual_seed(seed)
        sizes = [hidden_size, config.dim] if config.head == "linear" else [hidden_size, hidden_size, config.dim]
        layers: list[nn.Module] = []
        for size, out in pairwise(sizes):
            layers += [nn.ReLU()] if layers else []
            layers.append(nn.Linear(size, out, bias=False, device="meta"))
        self.projection = (layers[0] if len(layers) == 1 else nn.Sequential(*layers)).to_empty(device=device)
        bound = hidden_size**-0.5  # torch's own initialisation of a linear layer
        for weight in self.projection.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=self.generator)
        self.optimizer = torch.optim.AdamW(
            self.projection.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        objective = getattr(clipo_ops, config.objective)
        self.objective: Objective = (
            partial(objective, generator=self.generator) if config.objective == "infonce" else objective
        )
        self.steps = 0
        self.metrics: dict[str, float] = {}

    @property
    def warming_up(self) -> bool:
        """True while the head has not seen enough batches for its rewards to be used."""
        return self.steps < self.config.warmup_steps

    def step(
        self,
        pooled: Float[Tensor, "rollouts hidden"],
        success: Bool[Tensor, " rollouts"],
        groups: Int[Tensor, " rollouts"] | GroupLayout,
        *,
        learn: bool = True,
    ) -> Float[Tensor, " rollouts"]:
        """Rewards of these rollouts under the head as it is, then an optimizer step on their loss.

        In its warm-up the head takes `warmup_epochs` such steps, each with draws of its own.

        Args:
            pooled: Hidden states, one vector per rollout; detached here.
            success: True for correct rollouts.
            groups: Group ids or a layout.
            learn: False for rollouts of an evaluation: the head stays as it is, with its draws to come and its count of
                steps; only `metrics` are new.

        Returns:
            Contrastive rewards, detached, at least `floor`, and 0 for all that are no anchor. They are at most 0, but
            for an `infonce` draw with `offset: log_positives`.
        """
        layout = groups if isinstance(groups, GroupLayout) else GroupLayout.from_ids(groups)
        draws = self.generator.get_state()
        embeddings, loss = self._forward(pooled, success, layout)
        rewards = contrastive_reward(loss, weight=self.config.weight, floor=self.config.floor)
        anchors = contrastive_anchors(success, layout, scope=self.config.scope)
        count = int(anchors.sum())
        self._measure(embeddings, success, layout, anchors, rewards, float(loss.detach().sum() / max(count, 1)))
        # Without an anchor there is nothing to learn, and weight decay alone would shrink the head.
        if learn and count and not self.config.frozen:
            self._update(loss.sum() / count)
            for _ in range(self.config.warmup_epochs - 1 if self.warming_up else 0):
                self._update(self._forward(pooled, success, layout)[1].sum() / count)
        if learn:
            self.steps += 1
        else:
            self.generator.set_state(draws)
        return rewards

    def _forward(self, pooled: Tensor, success: Tensor, layout: GroupLayout) -> tuple[Tensor, Tensor]:
        """Embeddings, and the loss of each rollout."""
        embeddings = self.projection(pooled.detach().float())
        loss = contrastive_loss(
            embeddings,
            success,
            layout,
            objective=self.objective,
            scope=self.config.scope,
            similarity=self.config.similarity,
            temperature=self.config.temperature,
            offset=self.config.offset,
            reduction="none",
        )
        return embeddings, loss

    def _update(self, loss: Tensor) -> None:
        """One optimizer step, skipped where a gradient is not finite."""
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if all(weight.grad.isfinite().all() for weight in self.projection.parameters() if weight.grad is not None):
            self.optimizer.step()

    def _measure(
        self, embeddings: Tensor, success: Tensor, layout: GroupLayout, anchors: Tensor, rewards: Tensor, loss: float
    ) -> None:
        similarity = group_similarity(embeddings, success, layout)
        measured = {
            "clamp_fraction": clamp_fraction(rewards, anchors, floor=self.config.floor),
            "similarity_positive": similarity.positive,
            "similarity_negative": similarity.negative,
        }
        self.metrics = {"loss": loss, "anchor_fraction": float(anchors.float().mean())}
        self.metrics |= {name: float(value) for name, value in measured.items() if not value.isnan()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; loads with `torch.load(..., weights_only=True)`."""
        return {
            "projection": self.projection.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`.

        Raises:
            ConfigError: It is that of a head of another shape.
        """
        saved, own = _shapes(state["projection"]), _shapes(self.projection.state_dict())
        if saved != own:
            raise ConfigError(f"clipo.dim, clipo.head: expected a head of shape {own}, got {saved} in the checkpoint")
        self.projection.load_state_dict(state["projection"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.steps = state["steps"]


def _shapes(weights: dict[str, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in weights.values()]
