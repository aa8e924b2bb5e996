"""Policy workers on a CPU, for Ray to start: OpenRLHF's, but for DeepSpeed and the optimizer."""

import io
from types import SimpleNamespace
from typing import Any

import torch
from openrlhf.models import Actor
from openrlhf.trainer.ppo_utils.experience import Experience, remove_padding_in_sequences, split_experience_batch
from torch import nn
from transformers import AutoModelForCausalLM

from clipo_train.adapters.openrlhf import ClipoPolicyActor


def put_on_cpu(policy: Any, model: nn.Module, *, packing: bool = False, ring: Any = None) -> None:
    """What `init_model_from_pretrained` does, without a GPU."""
    torch.cuda.current_device = lambda: torch.device("cpu")
    if hasattr(model, "config"):
        model.config.use_cache = False  # as OpenRLHF does; otherwise packed rollouts would see one another
    policy.actor = Actor(model)
    policy.actor.packing_samples = packing
    policy.strategy = SimpleNamespace(ring_attn_group=ring, is_rank_0=lambda: False)


class TinyPolicy(ClipoPolicyActor):
    """A policy worker that keeps what it should learn from."""

    def init_model_from_pretrained(self, folder: str) -> None:
        torch.set_num_threads(1)
        put_on_cpu(self, AutoModelForCausalLM.from_pretrained(folder))
        self.items: list[Experience] = []

    def append(self, experience: Experience) -> None:
        self.items += remove_padding_in_sequences(split_experience_batch(experience))

    def fit(self, kl_ctl: float) -> dict[str, float]:
        items, self.items = self.items, []
        return {"items": len(items)}

    def save_checkpoint(self, tag: str, client_states: dict[str, Any], **_: Any) -> None:
        """As DeepSpeed, which puts the client states into a file of torch's."""
        self.saved = io.BytesIO()
        torch.save(client_states, self.saved)

    def get_checkpoint_states(self) -> dict[str, Any]:
        self.saved.seek(0)
        states: dict[str, Any] = torch.load(self.saved, weights_only=True)
        return states
