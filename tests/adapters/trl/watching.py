"""Trainers that work out for themselves what the contrastive rewards have to be, one rollout at a time."""

from typing import Any

import torch
from torch import Tensor

from clipo_ops import contrastive_loss, contrastive_reward, supcon_out
from clipo_train.adapters.trl import ClipoGRPOTrainer, ClipoRLOOTrainer


class Watching:
    """Stands before a trainer among the bases.

    Attributes:
        expected, got: Contrastive rewards of each batch of rollouts.
        own_forwards: How often the adapter made a forward of its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected: list[Tensor] = []
        self.got: list[Tensor] = []
        self.own_forwards = 0

    def _forward(self, rollouts: Any) -> None:
        self.own_forwards += 1
        super()._forward(rollouts)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rollouts, weight = self._rollouts, self.clipo_head.projection.weight.detach().clone()
        rewards = super()._calculate_rewards(*args, **kwargs)
        verdicts = rewards[:, self.reward_func_names.index(self.args.clipo_success)]
        judged = verdicts.isnan().logical_not()
        pooled = torch.stack(
            [
                self._mean_state(*row)
                for row in zip(rollouts.prompts, rollouts.completions, rollouts.written, strict=True)
            ]
        )
        size = self.num_generations if self.model.training else self.num_generations_eval
        loss = contrastive_loss(
            (pooled @ weight.double().T)[judged],
            verdicts[judged] > self.args.clipo_success_threshold,
            (torch.arange(len(pooled)) // size)[judged],
            objective=supcon_out,
            reduction="none",
        )
        expected = torch.full((len(pooled),), torch.nan, dtype=torch.float64)
        expected[judged] = contrastive_reward(loss)
        self.expected.append(expected)
        self.got.append(rewards[:, -1].double())
        return rewards

    @torch.no_grad()
    def _mean_state(self, prompt: list[int], completion: list[int], written: list[int]) -> Tensor:
        output = self.model(input_ids=torch.tensor([prompt + completion]), output_hidden_states=True, use_cache=False)
        states = output.hidden_states[-1][0, len(prompt) :].double()
        return states[torch.tensor(written, dtype=torch.bool)].mean(0)


class WatchingGRPO(Watching, ClipoGRPOTrainer):
    pass


class WatchingRLOO(Watching, ClipoRLOOTrainer):
    pass
