"""OpenRLHF's experience maker: contrastive rewards join the others before advantages are taken."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties
from torch import Tensor
from transformers import AutoConfig

from clipo_train.adapters.openrlhf.arguments import ClipoArguments
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead


class ClipoExperienceMaker(RemoteExperienceMaker):
    """`RemoteExperienceMaker` with contrastive rewards, whose head it trains; `info["reward"]` stays the outcome's.

    Attributes:
        head: The contrastive head, in the trainer's process and on its CPU.
        metrics: Of the last batch, by their names in the glossary.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clipo: ClipoArguments = self.args.clipo
        hidden = AutoConfig.from_pretrained(self.args.actor.model_name_or_path).get_text_config().hidden_size
        self.head = ClipoHead(hidden, self.clipo.config, seed=self.args.train.seed, device="cpu")
        self.metrics: dict[str, float] = {}
        self._pooled = torch.empty(0, hidden)

    def make_experience(self, samples_list: list[Experience]) -> list[Experience]:
        """OpenRLHF's own; then the policy workers hand over the hidden states that they have pooled meanwhile."""
        experiences: list[Experience] = super().make_experience(samples_list)
        copies = self.args.ds.ring_attn_size * self.args.ds.tensor_parallel_size
        pooled = self.actor_model_group.async_run_method(method_name="pop_pooled")
        self._pooled = torch.cat(self._flatten_results(pooled, copies))
        return experiences

    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """Adds the contrastive rewards of the whole batch to its rewards. Takes one step of the head."""
        contrastive = self._contrast(experiences).split([len(experience.index) for experience in experiences])
        for experience in experiences:
            experience.rewards = experience.rewards.float()
        apply_length_penalties(experiences, self.args)  # to the outcome's reward alone
        outcome = [experience.rewards for experience in experiences]
        for experience, reward, extra in zip(experiences, outcome, contrastive, strict=True):
            experience.rewards = reward + extra
        with _no_length_penalties(self.args.reward):
            experiences = super().compute_advantages_and_returns(experiences)
        for experience, reward in zip(experiences, outcome, strict=True):
            experience.info["reward"] = reward
        return experiences

    def _contrast(self, experiences: list[Experience]) -> Tensor:
        """Contrastive rewards of the rollouts of all experiences, in their order."""
        success = torch.cat([self._success(experience) for experience in experiences])
        index = torch.tensor([place for experience in experiences for place in experience.index])
        with torch.enable_grad():  # OpenRLHF is inside `no_grad`
            rewards = self.head.step(self._pooled, success, index // self.args.rollout.n_samples_per_prompt)
        # A similarity of which there is no pair is NaN, and not logged.
        metrics = {f"contrastive/{name}": value for name, value in self.head.metrics.items() if math.isfinite(value)}
        means = {"reward/contrastive": rewards.mean().item(), "rollout/accuracy": success.float().mean().item()}
        self.metrics = metrics | means
        return rewards

    def _success(self, experience: Experience) -> Tensor:
        """Which of these rollouts are right."""
        if self.clipo.success_fn is not None:
            success, wanted = self.clipo.success_fn(experience), (len(experience.index),)
            if not isinstance(success, Tensor) or success.dtype != torch.bool or success.shape != wanted:
                raise ConfigError(
                    f"clipo.success_fn: expected a bool tensor of shape {wanted}, got {_describe(success)}"
                )
            return success.cpu()
        if experience.scores is None:
            raise ConfigError(
                "clipo.success_fn: expected a function (module:function) that says which rollouts are right, or scores "
                "from the reward function, got neither"
            )
        scores: Tensor = experience.scores
        return scores > self.clipo.success_threshold


@contextmanager
def _no_length_penalties(settings: Any) -> Iterator[None]:
    """OpenRLHF would apply them to the sum of both rewards."""
    kept = settings.overlong_buffer_len, settings.stop_properly_penalty_coef
    settings.overlong_buffer_len = settings.stop_properly_penalty_coef = None
    try:
        yield
    finally:
        settings.overlong_buffer_len, settings.stop_properly_penalty_coef = kept


def _describe(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
