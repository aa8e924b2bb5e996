"""OpenRLHF's policy workers: the forward that gives old log-probabilities gives pooled hidden states too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from openrlhf.models.ring_attn_utils import gather_and_pad_tensor
from openrlhf.trainer.ray.ppo_actor import PolicyModelActor
from peft import PeftModel
from torch import Tensor, distributed, nn

from clipo_ops import mean_pool


def behind_remote(actor: Any) -> Any:
    """The class to which `@ray.remote` was applied, of which there can be subclasses."""
    return actor.__ray_metadata__.modified_class.__ray_actor_class__


class ClipoPolicyActor(behind_remote(PolicyModelActor)):  # type: ignore[misc]
    """`PolicyModelActor` that keeps the pooled hidden states of each micro-batch it scores."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pooled: list[Tensor] = []

    def forward(
        self, sequences: Tensor, action_mask: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Log-probabilities, as OpenRLHF's own; on the way the last hidden states are pooled over the response."""
        with _last_hidden(self.actor.model) as captured:
            logprobs: Tensor = super().forward(sequences, action_mask, attention_mask, *args, **kwargs)
        self._pooled.append(self._pool(captured[0], action_mask, attention_mask).cpu())
        return logprobs

    def pop_pooled(self) -> list[Tensor]:
        """Pooled hidden states of each micro-batch since the last call, (rollouts, hidden) in float32."""
        pooled, self._pooled = self._pooled, []
        return pooled

    @torch.no_grad()
    def _pool(self, states: Tensor, action_mask: Tensor, attention_mask: Tensor) -> Tensor:
        if self.actor.packing_samples:
            states = self._unpack(states, attention_mask.to(states.device))
        # A column of the mask says whether the policy wrote a token; the last one is that of the last token.
        return mean_pool(states[:, -action_mask.shape[1] :].float(), action_mask.to(states.device).bool())

    def _unpack(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """From one row of all tokens, of which each process of a ring has a part, to a padded row per rollout."""
        ring = self.strategy.ring_attn_group
        places = attention_mask.flatten().nonzero().flatten()
        padding = 0 if ring is None else -len(places) % distributed.get_world_size(ring)
        rows: Tensor = gather_and_pad_tensor(states, ring, padding, places, *attention_mask.shape)
        return rows.squeeze(2)


@contextmanager
def _last_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the backbone's last hidden states of each forward in the block."""
    policy: Any = getattr(model, "module", model)  # inside DeepSpeed's engine
    policy = policy.get_base_model() if isinstance(policy, PeftModel) else policy
    captured: list[Tensor] = []
    handle = policy.base_model.register_forward_hook(lambda _module, _inputs, output: captured.append(output[0]))
    try:
        yield captured
    finally:
        handle.remove()
