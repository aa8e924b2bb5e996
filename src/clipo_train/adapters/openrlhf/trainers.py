"""OpenRLHF's trainers, with CLIPO's experience maker; the head is part of their checkpoints."""

from typing import Any

import ray
from openrlhf.trainer import ppo_trainer_async
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.trainer.ppo_trainer_async import PPOTrainerAsync, TrainingActor

from clipo_train.adapters.openrlhf.experience import ClipoExperienceMaker
from clipo_train.adapters.openrlhf.policy import behind_remote
from clipo_train.errors import ConfigError

_HEAD = "clipo_head"
"""The head's name among the client states of OpenRLHF's checkpoints."""


class ClipoMixin:
    """Stands before a trainer of OpenRLHF's among the bases.

    Attributes:
        experience_maker: It has the head.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own: Any = self
        self.experience_maker = ClipoExperienceMaker(
            own.actor_model_group,
            own.critic_model_group,
            own.reward_model_group,
            own.reference_model_group,
            own.kl_ctl,
            own.strategy,
            own.tokenizer,
        )

    def train_step(self, rollout_samples: list[Any], global_step: int) -> tuple[dict[str, Any], int]:
        """OpenRLHF's own; in the head's warm-up, what comes before the policy's update."""
        if not self.experience_maker.head.warming_up:
            return super().train_step(rollout_samples, global_step)  # type: ignore[misc, no-any-return]
        experiences = self.experience_maker.make_experience_batch(rollout_samples)
        return self._compute_rollout_stats(experiences), global_step + 1

    def _compute_rollout_stats(self, experiences: list[Any]) -> dict[str, float]:
        stats: dict[str, float] = super()._compute_rollout_stats(experiences)  # type: ignore[misc]
        return stats | self.experience_maker.metrics

    # Checkpoints. What OpenRLHF calls client states is saved with the policy, and comes back with it.

    def save_logs_and_checkpoints(
        self, global_step: int, logs_dict: dict[str, Any] | None = None, client_states: dict[str, Any] | None = None
    ) -> None:
        super().save_logs_and_checkpoints(global_step, logs_dict, self._with_head(client_states))  # type: ignore[misc]

    def save_best_checkpoint(
        self, eval_metrics: dict[str, Any], global_step: int, client_states: dict[str, Any] | None = None
    ) -> None:
        super().save_best_checkpoint(eval_metrics, global_step, self._with_head(client_states))  # type: ignore[misc]

    def _with_head(self, client_states: dict[str, Any] | None) -> dict[str, Any]:
        states = {} if client_states is None else client_states
        states[_HEAD] = self.experience_maker.head.state_dict()
        return states

    def init_checkpoint_states(self) -> dict[str, Any]:
        """OpenRLHF's own; gives the head its part.

        Raises:
            ConfigError: The checkpoint is that of a run without a head, or of another head.
        """
        states: dict[str, Any] = super().init_checkpoint_states()  # type: ignore[misc]
        if states["global_step"] > 0:
            if _HEAD not in states:
                raise ConfigError(
                    "ckpt.load_enable: expected a checkpoint with a head, got one without; to begin CLIPO from its "
                    "policy, give that as actor.model_name_or_path"
                )
            self.experience_maker.head.load_state_dict(states.pop(_HEAD))
        return states


class ClipoPPOTrainer(ClipoMixin, behind_remote(PPOTrainer)):  # type: ignore[misc]
    """`PPOTrainer` with contrastive rewards."""


class ClipoTrainingActor(ClipoMixin, behind_remote(TrainingActor)):  # type: ignore[misc]
    """`TrainingActor`, the training half of `PPOTrainerAsync`, with contrastive rewards."""


class ClipoPPOTrainerAsync(behind_remote(PPOTrainerAsync)):  # type: ignore[misc]
    """`PPOTrainerAsync` with contrastive rewards."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # OpenRLHF finds the class by this name, in the process where this runs.
        ppo_trainer_async.TrainingActor = ray.remote(ClipoTrainingActor)
        super().__init__(*args, **kwargs)
