"""`trainer.v1.trainer_mode=clipo`: verl's synchronous trainer, with the contrastive reward added on the driver."""

import math
from pathlib import Path
from typing import Any

import torch
import transfer_queue
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_to_nested

from clipo_ops import token_level_rewards
from clipo_train.adapters.verl.engine import POOL, POOLED
from clipo_train.adapters.verl.rewards import contrastive_rewards, read_config, successes
from clipo_train.adapters.verl.selfcheck import MODEL_TYPE, TRAINER, check
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

HEAD_FILE = "clipo_head.pt"
"""The head's state, in verl's folder of a checkpoint."""


@register_trainer(TRAINER)
class ClipoTrainer(PPOTrainerSync):
    """The synchronous trainer of verl, with CLIPO configured by `trainer.v1.clipo` (`VerlConfig`).

    The pass that computes old log-probabilities gives the hidden states. Head, loss and reward are on the driver, which
    sees the rollouts of all workers; advantages, and all after them, are verl's.

    Attributes:
        head: The contrastive head; None if `enabled` is false.
    """

    head: ClipoHead | None = None

    def __init__(self, config: DictConfig) -> None:
        check()
        self.clipo = read_config(
            OmegaConf.to_container(config.trainer.v1.get(TRAINER) or OmegaConf.create(), resolve=True)
        )
        if self.clipo.enabled:
            _require_supported(config)
            with open_dict(config):
                config.actor_rollout_ref.model.model_type = MODEL_TYPE
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        self.trainer_mode = "sync"  # which verl asks for in many places, and this is
        return super()._build_replay_buffer()

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        if self.clipo.enabled:
            model = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
            hidden = model.hf_config.get_text_config().hidden_size
            self.head = ClipoHead(hidden, self.clipo, seed=self.clipo.seed, device="cpu")

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[POOL] = self.head is not None  # of this pass alone: verl returns another batch
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self.head is None:
            return super()._compute_advantage(batch, metrics)
        with marked_timer("contrastive", self.timing_raw):
            scores, total = self._rewards(self.head, batch, metrics)
        _put(batch, rm_scores=total)
        result = super()._compute_advantage(batch, metrics)
        # What the verifier said stays the score that verl logs; the sum of both is the reward.
        rewards = {} if self.config.algorithm.use_kl_in_reward else {"token_level_rewards": total}
        _put(batch, rm_scores=scores, **rewards)
        return result

    def _rewards(self, head: ClipoHead, batch: Any, metrics: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Scores per token, nested, and the same with the contrastive rewards. Takes one step of the head."""
        names = ["uid", "response_mask", "rm_scores", POOLED, "extra_fields"]
        names += [self.clipo.success] if self.clipo.success else []
        data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
        real = torch.tensor([not tag.get("is_padding", False) for tag in batch.tags])
        scores, mask = data["rm_scores"].to_padded_tensor(0.0), data["response_mask"].to_padded_tensor(0).bool()
        success = successes(data, scores.sum(1), real, self.clipo)
        self.warming_up = head.warming_up
        contrastive = contrastive_rewards(head, data, success, real, batch.keys)
        metrics |= _finite({f"contrastive/{name}": value for name, value in head.metrics.items()})
        metrics["reward/contrastive"] = contrastive[real].mean().item()
        metrics["rollout/accuracy"] = success[real].float().mean().item()
        total = scores + token_level_rewards(contrastive, mask)
        return data["rm_scores"], response_to_nested(total, data["response_mask"])

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        return batch if self.head is not None and self.warming_up else super()._update_actor(batch, metrics)

    # Checkpoints. The head is saved first: verl's own part ends by declaring the checkpoint complete.

    def _save_checkpoint(self) -> None:
        if self.head is not None:
            folder = Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.head.state_dict(), folder / HEAD_FILE)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.head is None or self.global_steps == 0:
            return
        trainer = self.config.trainer
        folder = Path(trainer.default_local_dir, f"global_step_{self.global_steps}")
        path = (Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else folder) / HEAD_FILE
        if not path.is_file():
            raise ConfigError(f"trainer.resume_mode: expected a checkpoint with {HEAD_FILE}, got {str(path.parent)!r}")
        self.head.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def _require_supported(config: DictConfig) -> None:
    actor, correction = config.actor_rollout_ref.actor, config.algorithm.get("rollout_correction")
    if actor.strategy not in ("fsdp", "fsdp2"):
        raise ConfigError(f"actor_rollout_ref.actor.strategy: expected fsdp or fsdp2, got {actor.strategy!r}")
    if correction and correction.get("bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode: expected false, as the pass that it saves gives "
            "the hidden states"
        )


def _put(batch: Any, **fields: Tensor) -> None:
    values = TensorDict(fields, batch_size=len(batch.keys))
    transfer_queue.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=values)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """A similarity of which there is no pair is NaN, and not logged."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
