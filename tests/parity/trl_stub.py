"""TRL's trainers without a model or data: their own methods, on numbers that a test gives."""

import os
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from trl import GRPOConfig, GRPOTrainer
from trl.experimental.gmpo import GMPOTrainer

from .batches import Tokens

__all__ = ["GMPOTrainer", "generated", "loss_and_gradient", "trainer"]
ACCELERATOR = Accelerator(cpu=True)


def trainer(cls: type[GRPOTrainer] = GRPOTrainer, **settings: Any) -> GRPOTrainer:
    """A trainer whose constructor never ran; what its methods read has the configuration's defaults."""
    self = cls.__new__(cls)
    defaults = {name: field.default for name, field in GRPOConfig.__dataclass_fields__.items()}
    chosen = {**defaults, "steps_per_generation": 1, "report_to": [], **settings}
    self.args = SimpleNamespace(**chosen)
    for name in READ_FROM_THE_CONFIGURATION:
        setattr(self, name, chosen[name])
    self.epsilon_low = chosen["epsilon"]
    self.epsilon_high = chosen["epsilon"] if chosen["epsilon_high"] is None else chosen["epsilon_high"]
    self.accelerator, self.model = ACCELERATOR, SimpleNamespace(training=True, is_gradient_checkpointing=False)
    self.current_gradient_accumulation_steps, self.num_generations_eval = 1, chosen["num_generations"]
    self.aux_loss_enabled = self._entropy_bonus_enabled = self._is_vlm = False
    self.environment_factories = self.environments = self.tools = None
    self._metrics = {mode: defaultdict(list) for mode in ("train", "eval")}
    self._logs = {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": []}
    self._pending_extra_logs, self._pending_metrics = {}, {}
    self._tokenizer, self.pad_to_multiple_of = SimpleNamespace(pad_token_id=0), None
    return self


READ_FROM_THE_CONFIGURATION = (
    "beta",
    "importance_sampling_level",
    "loss_type",
    "mask_truncated_completions",
    "max_completion_length",
    "multi_objective_aggregation",
    "num_generations",
    "num_iterations",
    "off_policy_mask_threshold",
    "scale_rewards",
    "top_entropy_quantile",
    "use_vllm",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
    "vllm_importance_sampling_correction",
    "vllm_importance_sampling_mode",
)


def loss_and_gradient(
    batch: Tokens, cls: type[GRPOTrainer] = GRPOTrainer, *, inputs: dict[str, Tensor] | None = None, **settings: Any
) -> tuple[Tensor, Tensor]:
    """`_compute_loss` and its gradient by the log-probabilities."""
    self, leaf = trainer(cls, **settings), batch.logprobs.clone().requires_grad_()
    self._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, batch.entropy, None)
    ids, mask = torch.zeros(batch.mask.shape, dtype=torch.long), batch.mask.long()
    given = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old_logprobs,
        "num_items_in_batch": mask.sum(),
        **(inputs or {}),
    }
    loss = self._compute_loss(None, given)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def generated(
    rewards: Tensor, *, old_logprobs: Tensor | None = None, sampled: list[list[float]] | None = None, **settings: Any
) -> dict[str, Tensor]:
    """What `_generate_and_score_completions` makes of rewards (rollouts x functions), and of log-probabilities."""
    count, functions = rewards.shape
    self = trainer(**settings)
    self.reward_func_names = [f"f{k}" for k in range(functions)]
    self.reward_funcs, self.reward_weights = (
        self.reward_func_names,
        settings.get("reward_weights", torch.ones(functions)),
    )
    completions = [[1] * len(row) for row in sampled] if sampled else [[1]] * count
    self._generate = lambda _: ([[1]] * count, completions, None, [""] * count, sampled, {}, None, None)
    self._calculate_rewards = lambda *_: rewards
    self._get_per_token_logps_and_entropies = lambda *_, **__: (old_logprobs, None, None)
    return self._generate_and_score_completions([{"prompt": ""}] * count)
