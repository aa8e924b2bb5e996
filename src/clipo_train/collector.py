"""Prompts to judged rollouts: which prompts a step has, and DAPO's dynamic sampling of more of them."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from clipo_ops import informative_groups
from clipo_train.config import RolloutConfig
from clipo_train.metrics import Stopwatch
from clipo_train.parallel import gather_generation, gather_list, own_block
from clipo_train.policy import EncodedExample
from clipo_train.reasoning import judged_texts
from clipo_train.rollout import RolloutEngine, Rollouts, Sampling
from clipo_train.verifiers import VerifierPool


class Collector:
    """Samples a step's rollouts and has them judged, on one process or on many.

    With `dynamic_sampling` (DAPO, arXiv 2503.14476, section 3.2) further prompts are sampled, as many as a batch has at
    a time, until the batch is full of groups in which some rollouts are right and some wrong; after
    `max_sampling_rounds` it is filled up with others. What is sampled beyond a full batch is dropped. Verdicts are
    gathered first, so that all processes decide alike.

    Attributes:
        prompts: How many prompts have been drawn; where a resumed run goes on.
        metrics: Of the last step, with dynamic sampling: sampling_rounds, and the sampled_accuracy of all rollouts,
            dropped ones included.

    Args:
        examples: The training set.
        engine: Samples.
        verifier: Judges.
        config: How.
        seed: Of the prompts' order.
        accelerator: Of the run.
        clock: Charged with the time of each part.
    """

    def __init__(
        self,
        examples: Sequence[EncodedExample],
        engine: RolloutEngine,
        verifier: VerifierPool,
        config: RolloutConfig,
        *,
        seed: int,
        accelerator: Accelerator,
        clock: Stopwatch,
    ) -> None:
        self.examples, self.engine, self.verifier, self.config = examples, engine, verifier, config
        self.seed, self.accelerator, self.clock = seed, accelerator, clock
        self.prompts = 0
        self.metrics: dict[str, float] = {}

    def collect(self) -> Rollouts:
        """A batch of rollouts, the same on all processes."""
        batch = self._sample()
        if not self.config.dynamic_sampling:
            return batch
        rounds, right = 1, int(batch.success.sum())
        while rounds < self.config.max_sampling_rounds and not informative(batch).all():
            more = self._sample()
            rounds, right = rounds + 1, right + int(more.success.sum())
            both = batch.join(more)
            first = informative(both).logical_not().int().argsort(stable=True)  # each kind in the order of sampling
            batch = both.select(first[: self.config.batch_size])
        self.metrics = {"sampling_rounds": rounds, "sampled_accuracy": right / (rounds * self.config.batch_size)}
        return batch

    def _sample(self) -> Rollouts:
        """Groups of completions for the next prompts."""
        settings, accelerator = self.config, self.accelerator
        prompts = own_block(self._next_prompts(), accelerator)
        with self.clock("rollout"):
            sampling = Sampling(settings.max_new_tokens, settings.temperature)
            generation = self.engine.generate(
                [item.prompt_ids for item in prompts], samples=settings.group_size, sampling=sampling
            )
        with self.clock("verify"):
            examples = [item.example for item in prompts for _ in range(settings.group_size)]
            judged = judged_texts([item.reasoning for item in prompts], generation)
            verdicts = self.verifier.verify(examples, judged)
        return Rollouts(
            gather_list(examples, accelerator),
            gather_generation(generation, accelerator),
            gather_list(verdicts, accelerator),
            settings.group_size,
        )

    def _next_prompts(self) -> list[EncodedExample]:
        """Epoch after epoch, each in an order of its own that depends on the seed alone."""
        start, total = self.prompts, len(self.examples)
        self.prompts += self.config.batch_size // self.config.group_size
        chosen: list[EncodedExample] = []
        for place in range(start, self.prompts):
            epoch, index = divmod(place, total)
            if not chosen or index == 0:
                order = torch.randperm(total, generator=torch.Generator().manual_seed(derived_seed(self.seed, epoch)))
            chosen.append(self.examples[int(order[index])])
        return chosen


def informative(rollouts: Rollouts) -> torch.Tensor:
    """Which rollouts are in a group with both right and wrong ones."""
    return informative_groups(rollouts.success, rollouts.groups)


def derived_seed(seed: int, number: int) -> int:
    """A seed for the step or epoch of that number."""
    return seed * 1_000_003 + number
