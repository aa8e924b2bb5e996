"""The policy in training: it scores rollouts and is updated on them, on one process or on many."""

import copy
import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from transformers import get_scheduler

from clipo_ops import aggregate_denominator
from clipo_train.config import TrainConfig
from clipo_train.dropout import train_mode
from clipo_train.errors import NonFiniteError
from clipo_train.fingerprints import weights_fingerprint
from clipo_train.folders import whole_folder
from clipo_train.lora import add_lora, save_adapters, save_policy, without_lora
from clipo_train.metrics import Stopwatch
from clipo_train.objective import Credit, policy_loss
from clipo_train.parallel import gather_shares, micro_batches, own_share, require_finite, settle_launch
from clipo_train.policy import check_forward, hidden_size, load_policy, score_tokens
from clipo_train.rollout import Generation
from clipo_train.testbed.warm_start import is_test_bed


class Scores(NamedTuple):
    """What one forward says of a batch of rollouts, without gradient.

    Attributes:
        logprobs: Of the response tokens, under the policy that sampled them.
        entropy: Of that policy at each response token.
        ref_logprobs: As `logprobs`, under the reference policy; None without one.
        pooled: What was asked for of each response's last hidden states, or None.
    """

    logprobs: Float[Tensor, "rollouts tokens"]
    entropy: Float[Tensor, "rollouts tokens"]
    ref_logprobs: Float[Tensor, "rollouts tokens"] | None
    pooled: Float[Tensor, "rollouts ..."] | None


Pool: TypeAlias = Callable[[Float[Tensor, "rollouts tokens hidden"], Generation], Float[Tensor, "rollouts ..."] | None]
"""Makes one tensor per rollout of the last hidden states of its response, or None where none is needed."""


class Learner:
    """Policy, reference policy, optimizer and schedule.

    Forward and backward passes are shared out by length: processes have about equal work, and a short response is not
    padded to a long one's length. Neither the number of processes nor the micro-batch size changes the result.

    Args:
        config: The run.
        accelerator: Of the run.
        clock: Charged with the time of each part.
        progress: Called with (steps done, steps in all) during the test bed's warm start.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        clock: Stopwatch,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.config, self.accelerator, self.clock = config, accelerator, clock
        settle_launch(accelerator, config.optimizer)
        self.policy, self.tokenizer = load_policy(config.model, seed=config.seed, progress=progress)
        self.fingerprints: dict[str, str] = {}
        if (config.loss.kl_weight or config.model.lora is not None) and not is_test_bed(config.model.path):
            self.fingerprints["model.path"] = weights_fingerprint(self.policy)  # they stay a part of the run
        if config.model.lora is not None:
            add_lora(self.policy, config.model.lora, seed=config.seed)
        self.policy.to(accelerator.device)
        check_forward(self.policy)
        self.hidden_size = hidden_size(self.policy)
        self.reference = None
        if config.loss.kl_weight and config.model.lora is None:
            self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        settings = config.optimizer
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.policy.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over each parameter; otherwise ten, each with a buffer of its own
        )
        self.skipped_in_row = 0
        steps = config.steps - (config.clipo.warmup_steps if config.clipo.enabled else 0)
        updates = max(0, steps) * settings.epochs * (config.rollout.batch_size // settings.minibatch_size)
        scheduler = get_scheduler(settings.schedule, optimizer, settings.warmup_updates, updates)
        self.model, self.optimizer, self.scheduler = accelerator.prepare(self.policy, optimizer, scheduler)

    @torch.no_grad()
    def score(self, generation: Generation, *, pool: Pool | None = None) -> Scores:
        """One forward over the rollouts: log-probabilities (also the reference's), entropy, pooled hidden states."""
        self.model.eval()
        order = generation.response_mask.sum(1).argsort()
        parts = [
            self._score(generation.select(rows), generation.response_mask.shape[1], pool=pool)
            for rows in own_share(order, self.accelerator).split(self.config.optimizer.micro_batch_size)
        ]
        columns: list[Any] = [
            None if column[0] is None else gather_shares(torch.cat(column), order, self.accelerator)
            for column in zip(*parts, strict=True)
        ]
        return Scores(*columns)

    def _score(self, part: Generation, width: int, *, pool: Pool | None) -> Scores:
        temperature = self.config.rollout.temperature
        missing = (0, width - part.response_mask.shape[1])
        with self.clock("score"):
            scores = score_tokens(self.model, part, temperature=temperature, entropy=True)
            reference = self._reference_logprobs(part) if self.config.loss.kl_weight else None
            columns: list[Any] = [
                None if values is None else pad(values, missing)
                for values in (scores.logprobs, scores.entropy, reference)
            ]
        with self.clock("contrastive"):
            columns.append(None if pool is None else pool(scores.hidden, part))
        return Scores(*columns)

    def _reference_logprobs(self, part: Generation) -> Tensor:
        """Under the policy as it was before training: a copy of it, or with LoRA the policy without its adapters."""
        temperature = self.config.rollout.temperature
        if self.reference is None:
            with without_lora(self.policy):
                return score_tokens(self.model, part, temperature=temperature).logprobs
        with self.accelerator.autocast():
            return score_tokens(self.reference, part, temperature=temperature).logprobs

    def update(self, generation: Generation, scores: Scores, credit: Credit, *, seed: int) -> dict[str, float]:
        """One optimizer step per mini-batch, of `optimizer.epochs` passes.

        An update whose loss or gradient is not finite is skipped.

        Args:
            generation: The rollouts.
            scores: Of them.
            credit: Their advantages.
            seed: Seeds the division into mini-batches.

        Raises:
            NonFiniteError: Too many updates in a row were not finite, or the weights are not after them.
        """
        settings, losses, norms, skipped = self.config.optimizer, [], [], 0
        train_mode(self.model, router_noise=self.config.model.dropout)
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(len(generation.tokens), generator=generator) for _ in range(settings.epochs)]
        for minibatch in chain.from_iterable(order.split(settings.minibatch_size) for order in orders):
            losses.append(self._accumulate(generation, scores, credit, minibatch.to(generation.tokens.device)))
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm)
            norms.append(float(norm))
            if self._is_finite(losses[-1], norms[-1]):
                self.optimizer.step()
                self.scheduler.step()
            else:
                skipped += 1
            self.optimizer.zero_grad()
        require_finite(self.policy, self.accelerator)
        loss, clipped, moved = torch.stack(losses).mean(0).tolist()
        return {
            "policy/skipped_updates": skipped,
            "policy/loss": loss,
            "policy/clip_fraction": clipped,
            "policy/approx_kl": moved,
            "policy/grad_norm": sum(norms) / len(norms),
            "policy/learning_rate": self.scheduler.get_last_lr()[0],
        }

    def _is_finite(self, losses: Tensor, norm: float) -> bool:
        """Whether an update may be made: its loss and its gradient's norm are finite, on all processes alike.

        Raises:
            NonFiniteError: They are not, `optimizer.max_skipped` times in a row; or once with DeepSpeed, which has
                already made the update.
        """
        if math.isfinite(norm) and bool(losses[0].isfinite()):
            self.skipped_in_row = 0
            return True
        self.skipped_in_row += 1
        made = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if made or self.skipped_in_row >= self.config.optimizer.max_skipped:
            raise NonFiniteError(
                f"optimizer.max_skipped: expected a finite loss and gradient, got loss {float(losses[0]):g} and "
                f"gradient norm {norm:g}, {self.skipped_in_row} updates in a row"
            )
        return False

    def _accumulate(self, generation: Generation, scores: Scores, credit: Credit, minibatch: Tensor) -> Tensor:
        """Gradients of a mini-batch's loss; returns the loss's parts, summed over micro-batches and processes."""
        config, accelerator = self.config, self.accelerator
        mask = generation.response_mask[minibatch]
        denominator = aggregate_denominator(
            mask, mode=config.loss.aggregation, max_length=config.rollout.max_new_tokens
        )
        tokens = aggregate_denominator(mask)
        own = own_share(minibatch[mask.sum(1).argsort()], accelerator)
        totals: list[Tensor] = []
        for rows in micro_batches(own, config.optimizer.micro_batch_size, self.model, accelerator):
            part = generation.select(rows)
            width = part.response_mask.shape[1]
            own_scores = score_tokens(
                self.model,
                part,
                temperature=config.rollout.temperature,
                entropy=config.loss.entropy_weight > 0,
            )
            result = policy_loss(
                own_scores.logprobs,
                scores.logprobs[rows, :width],
                None if scores.ref_logprobs is None else scores.ref_logprobs[rows, :width],
                credit.advantages[rows],
                part.response_mask,
                config.loss,
                denominator=denominator,
                tokens=tokens,
                rollout_logprobs=part.logprobs,
                entropy=own_scores.entropy,
            )
            # Processes' gradients are averaged, where the loss is a sum over them.
            accelerator.backward(result.loss * accelerator.num_processes)
            totals.append(torch.stack([value.detach() for value in result]))
        total: Tensor = accelerator.reduce(torch.stack(totals).sum(0), reduction="sum")
        return total

    def save(self, run_dir: Path) -> None:
        """Writes the policy to `run_dir/final`, and with LoRA its adapters to `run_dir/adapter`."""
        weights = self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            with whole_folder(run_dir / "final") as folder:
                save_policy(self.policy, weights, folder)
                self.tokenizer.save_pretrained(folder)
            if self.config.model.lora is not None:
                with whole_folder(run_dir / "adapter") as folder:
                    save_adapters(self.policy, weights, folder)
