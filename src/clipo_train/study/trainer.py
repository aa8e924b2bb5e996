"""The trainer of a study's runs: any reward, and the same random draws in all arms of a seed."""

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops import GroupLayout, mean_pool, noise_share, segment_mean_pool
from clipo_train.collector import derived_seed
from clipo_train.config import TrainConfig
from clipo_train.head import ClipoHead
from clipo_train.learner import Scores
from clipo_train.rollout import Generation, Rollouts
from clipo_train.study.rewards import REWARDS
from clipo_train.trainer import Trainer

_STEP_ENDS = ";#"
_STEPS = 6


class StudyTrainer(Trainer):
    """A `Trainer` whose contrastive reward is one of `clipo_train.study.rewards`.

    Every step begins from a random state of its own: arms of one seed sample with the same noise at every step, and the
    same rollouts as long as their policies are the same. It keeps its logs only: no checkpoint, policy or report.

    Args:
        config: The run; the reward decides whether `clipo` has any effect.
        reward: Name of the reward.
        show_progress: As `Trainer`.
    """

    def __init__(self, config: TrainConfig, reward: str, *, show_progress: bool = False) -> None:
        super().__init__(config, show_progress=show_progress)
        self.reward = REWARDS[reward]
        self.generator = torch.Generator(self.accelerator.device)
        self.noise_share: dict[str, float] = {}
        vocabulary = self.learner.tokenizer.get_vocab()
        ends = [vocabulary[mark] for mark in _STEP_ENDS if mark in vocabulary]
        self.step_ends = torch.tensor(ends, device=self.accelerator.device)

    def before_step(self) -> None:
        """Common random numbers."""
        seed = derived_seed(self.config.seed, self.step)
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def pool(self, hidden: Float[Tensor, "rollouts tokens hidden"], generation: Generation) -> Tensor:
        """Rollouts x (1 + steps) x hidden: the mean over the response, and over each part that ends in `;` or `#`."""
        rollouts, mask = len(hidden), generation.response_mask
        ends = torch.isin(generation.response, self.step_ends) & mask
        step = (ends.cumsum(1) - ends.long()).clamp(max=_STEPS - 1)
        segment = torch.where(mask, step + _STEPS * torch.arange(rollouts, device=mask.device).unsqueeze(1), -1)
        by_step = segment_mean_pool(hidden.flatten(0, 1), segment.flatten(), num_segments=_STEPS * rollouts)
        return torch.cat([mean_pool(hidden, mask).unsqueeze(1), by_step.view(rollouts, _STEPS, -1)], 1)

    def contrastive_rewards(self, rollouts: Rollouts, scores: Scores) -> Float[Tensor, " rollouts"]:
        """Those of the arm."""
        states = cast("Tensor", scores.pooled)  # `pool` makes them for every reward
        return self.reward(self, rollouts, states)

    def head_step(
        self, pooled: Float[Tensor, "rollouts hidden"], success: Bool[Tensor, " rollouts"], groups: GroupLayout
    ) -> Float[Tensor, " rollouts"]:
        """The head's rewards, after which it has learnt; measures their share of noise, if it is InfoNCE's."""
        head = cast("ClipoHead", self.head)  # the rewards that call this are those that get one
        if self.config.clipo.objective == "infonce":
            embeddings = head.projection(pooled.float())
            share = noise_share(embeddings, success, groups, temperature=self.config.clipo.temperature)
            self.noise_share = {"noise_share": float(share)}
        return head.step(pooled, success, groups)

    def contrastive_metrics(self) -> dict[str, float]:
        """The head's, and the noise."""
        return super().contrastive_metrics() | self.noise_share

    def save(self, metrics: dict[str, float]) -> None:
        """Nothing: a run takes seconds."""

    def finish(self) -> Path:
        """Nothing to write."""
        self.accelerator.end_training()
        return self.config.run_dir
