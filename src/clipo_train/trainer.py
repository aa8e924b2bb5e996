"""The reference trainer, from prompts to an updated policy. Read `Trainer.train`, then `Trainer._step`."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from jaxtyping import Float
from torch import Tensor

from clipo_ops import mean_pool
from clipo_train.checkpoint import Position, check_unchanged, latest_checkpoint, load_checkpoint, save_checkpoint
from clipo_train.collector import Collector, derived_seed
from clipo_train.config import TrainConfig
from clipo_train.config.files import dump_config, flat_config
from clipo_train.data import load_examples
from clipo_train.errors import ConfigError, NonFiniteError
from clipo_train.evaluation import checked, configured_verifier, load_evaluator
from clipo_train.fingerprints import examples_fingerprint
from clipo_train.folders import BEGUN, check_run_dir
from clipo_train.head import ClipoHead
from clipo_train.learner import Learner, Scores
from clipo_train.measures import describe, describe_process, sample_rows
from clipo_train.metrics import MetricsLog, Stopwatch, progress_bar, require_trackers
from clipo_train.objective import assign_credit
from clipo_train.parallel import gather_list, require_finite
from clipo_train.policy import EncodedExample, encode_prompts
from clipo_train.report import write_report
from clipo_train.rollout import Generation, Rollouts
from clipo_train.rollout.loading import load_engine
from clipo_train.rollout.mismatch import logprob_gap, require_agreement
from clipo_train.run_lock import locked
from clipo_train.special_tokens import describe_ends
from clipo_train.stopping import Stopped, StopRequest, noted_signals
from clipo_train.whole_file import write_whole


class Trainer:
    """Trains a policy by GRPO, with CLIPO's contrastive reward if `config.clipo.enabled`.

    A subclass may change `contrastive_rewards` and `pool`, to train by a reward of its own, and `before_step`, `save`
    and `finish`.

    Args:
        config: The run. Its folder is created by `train`, not before.
        show_progress: Draw a progress bar.

    Raises:
        ConfigError: Anything in the configuration that cannot work, or a run folder that must not be overwritten.
    """

    def __init__(self, config: TrainConfig, *, show_progress: bool = True) -> None:
        self.config = config
        check_run_dir(config.run_dir, resume=config.resume)
        if config.resume:
            check_unchanged(config)
        require_trackers(config.logging.trackers)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with=list(config.logging.trackers) or None,
            project_dir=config.run_dir,
        )
        self._check_shares()
        set_seed(config.seed, device_specific=True)
        self.clock = Stopwatch(self.accelerator.device)
        self.progress = progress_bar(visible=show_progress and self.accelerator.is_main_process)
        with self.progress:
            self._load_model()
        self.verifier = configured_verifier(config.data, config.data.verifier)
        examples = self._load_data()
        self.fingerprints = self.learner.fingerprints | {"data.train": examples_fingerprint(examples)}
        self.evaluator = load_evaluator(config, self.learner.tokenizer, self.accelerator)
        self._load_engine(examples)
        self.collector = Collector(
            examples,
            self.engine,
            self.verifier,
            config.rollout,
            seed=config.seed,
            accelerator=self.accelerator,
            clock=self.clock,
        )
        self.metrics = MetricsLog(config.run_dir, self.accelerator)
        self.step = 0
        self.stop = StopRequest()

    def train(self) -> Path:
        """Runs to the last step.

        Ctrl-C and SIGTERM end it after the current step, of which it writes a checkpoint; a second one ends it at once.

        Returns:
            The path of the report.

        Raises:
            Stopped: It was asked to stop.
        """
        with noted_signals() as self.stop, self._own_run_dir():
            with self.verifier, closing(self.engine), self.progress, self._last_checkpoint_named():
                self._train()
            return self.finish()

    def _train(self) -> None:
        config = self.config
        unlogged = self._open_run_dir()
        if unlogged is not None:
            self._log(unlogged)
        elif self.step == 0 and config.evaluation.initial:
            self.metrics.log(0, self.evaluator.run(self.engine))
        saved = self.step
        self._stop_if_asked(saved, {})
        task = self.progress.add_task("training", total=config.steps, completed=self.step, note="")
        while self.step < config.steps:
            metrics = self._step()
            if self._due(config.checkpoint.every):
                self.save(metrics)
                saved = self.step
            self._stop_if_asked(saved, metrics)
            self._log(metrics)
            self.progress.update(task, advance=1, note=_headline(metrics))
            self._stop_if_asked(saved, metrics)

    def _stop_if_asked(self, saved: int, metrics: dict[str, float]) -> None:
        """Ends the run, in all processes, when one was asked to, with a checkpoint of the step that it has just done.

        Metrics not logged yet are when it goes on, from the checkpoint.
        """
        number = max(gather_list([self.stop.number], self.accelerator))
        if not number:
            return
        if saved < self.step:
            self.save(metrics)
        kept = latest_checkpoint(self.config.run_dir)
        what = "there is no checkpoint yet" if kept is None else f"the last checkpoint is {str(kept)!r}"
        raise Stopped(f"stopped after step {self.step}, {what}", number)

    def _log(self, metrics: dict[str, float]) -> None:
        """Writes a step's metrics, with those of an evaluation where one is due.

        The step's checkpoint is written before, and holds them, so that an evaluation that fails loses nothing.
        """
        if self._due(self.config.evaluation.every):
            metrics = metrics | self.evaluator.run(self.engine)
        self.metrics.log(self.step, metrics)

    def _step(self) -> dict[str, float]:
        """Rollouts, their credit, and a pass of updates over them."""
        self.step += 1
        self.before_step()
        with self.clock("step"):
            rollouts = self.collector.collect()
            scores = self.learner.score(rollouts.generation, pool=self.pool)
            gap = logprob_gap(rollouts.generation, scores.logprobs)
            if self.syncs <= 1:  # the weights it began with, and those of the first update
                require_agreement(gap, self.config.rollout.logprob_tolerance)
            warming_up = self.head is not None and self.head.warming_up
            with self.clock("contrastive"):
                credit = assign_credit(
                    rollouts,
                    self.contrastive_rewards(rollouts, scores),
                    self.config,
                    logprobs=scores.logprobs,
                    ref_logprobs=scores.ref_logprobs,
                )
            update: dict[str, float] = {}
            if not warming_up:
                with self.clock("update"):
                    seed = derived_seed(self.config.seed, self.step)
                    update = self.learner.update(rollouts.generation, scores, credit, seed=seed)
                    self.engine.sync()
                    self.syncs += 1
        self.metrics.completions(sample_rows(self.step, rollouts, credit, self.config.logging.completions))
        sampled = {f"rollout/{name}": value for name, value in self.collector.metrics.items()}
        named = {f"contrastive/{name}": value for name, value in self.contrastive_metrics().items()}
        described = describe(rollouts, scores, credit) | describe_process(rollouts, credit)
        return described | sampled | gap | named | update | self.clock.read()

    def before_step(self) -> None:
        """Nothing; for a subclass."""

    def pool(
        self, hidden: Float[Tensor, "rollouts tokens hidden"], generation: Generation
    ) -> Float[Tensor, "rollouts ..."] | None:
        """What `contrastive_rewards` gets as `scores.pooled`: the mean of each response's last hidden states."""
        return None if self.head is None else mean_pool(hidden, generation.response_mask)

    def contrastive_rewards(self, rollouts: Rollouts, scores: Scores) -> Float[Tensor, " rollouts"]:
        """Added to the outcome rewards: the head's, after which it has taken a step; zeros without one."""
        if self.head is None or scores.pooled is None:
            return torch.zeros_like(rollouts.outcome)
        return self.head.step(scores.pooled, rollouts.success, rollouts.groups)

    def contrastive_metrics(self) -> dict[str, float]:
        """What is logged of the step's contrastive rewards as `contrastive/...`: the head's own metrics."""
        return {} if self.head is None else self.head.metrics

    def _due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    # Setting up and leaving.

    def _check_shares(self) -> None:
        """Each process has as many groups, and as many rollouts of each mini-batch, as all others."""
        processes, rollout = self.accelerator.num_processes, self.config.rollout
        for name, count in (
            ("rollout.batch_size / rollout.group_size", rollout.batch_size // rollout.group_size),
            ("optimizer.minibatch_size", self.config.optimizer.minibatch_size),
        ):
            if count % processes:
                raise ConfigError(f"{name}: expected a multiple of the {processes} processes, got {count}")

    def _load_model(self) -> None:
        """Learner and head."""
        config = self.config
        task = self.progress.add_task("loading the model", total=None, note="")
        self.learner = Learner(
            config,
            self.accelerator,
            self.clock,
            progress=lambda done, total: self.progress.update(
                task, description="warm start", completed=done, total=total
            ),
        )
        self.progress.remove_task(task)
        self.head = None
        if config.clipo.enabled:
            self.head = ClipoHead(
                self.learner.hidden_size, config.clipo, seed=config.seed, device=self.accelerator.device
            )

    def _load_data(self) -> list[EncodedExample]:
        data = self.config.data
        examples = load_examples(
            data.train,
            prompt_prefix=data.prompt_prefix,
            prompt_suffix=data.prompt_suffix,
            limit=data.limit,
            seed=self.config.seed,
            options=data.options,
            columns=data.columns,
        )
        encoded = encode_prompts(
            self.learner.tokenizer,
            examples,
            max_tokens=self.config.rollout.max_prompt_tokens,
            judge_thinking=data.judge_thinking,
        )
        return checked(encoded, self.verifier, data, data.train)

    def _load_engine(self, examples: list[EncodedExample]) -> None:
        prompts = chain(examples, *self.evaluator.sets.values())
        sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self.engine = load_engine(self.config, self.learner.policy, self.learner.tokenizer, prompts, in_step=sharded)
        self.syncs = 0
        if not self.progress.disable:
            self.progress.console.print(describe_ends(self.learner.policy, self.learner.tokenizer), markup=False)

    @contextmanager
    def _own_run_dir(self) -> Iterator[None]:
        """The run's folder, locked by the main process; what was allowed in `__init__` must still be so."""
        run_dir, refusal = self.config.run_dir, ""
        with ExitStack() as held:
            if self.accelerator.is_main_process:
                try:
                    run_dir.mkdir(parents=True, exist_ok=True)
                    held.enter_context(locked(run_dir))
                    check_run_dir(run_dir, resume=self.config.resume)
                except ConfigError as error:
                    refusal = str(error)
            refusal = gather_list([refusal], self.accelerator)[0]
            if refusal:
                with self.verifier, closing(self.engine):
                    raise ConfigError(refusal)
            yield

    def _open_run_dir(self) -> dict[str, float] | None:
        """Begins the run in its folder, or goes on.

        Returns:
            The metrics of the last step, if the run ended between its checkpoint and its line in the log.
        """
        run_dir, accelerator = self.config.run_dir, self.accelerator
        position = load_checkpoint(self.learner, self.head, self.fingerprints) if self.config.resume else None
        if position is not None:
            self.step, self.collector.prompts = position.step, position.prompts
            self.learner.skipped_in_row = position.skipped
            self.engine.sync()
        accelerator.wait_for_everyone()  # until all have looked whether the folder exists
        logged = 0
        if accelerator.is_main_process:
            if position is None:
                (run_dir / BEGUN).touch()
            logged = self.metrics.rewind(-1 if position is None else position.step)
            write_whole(run_dir / "config.yaml", dump_config(self.config))
        accelerator.init_trackers(self.config.logging.project, flat_config(self.config))
        logged = gather_list([logged], accelerator)[0]
        return position.metrics if position is not None and logged < position.step else None

    @contextmanager
    def _last_checkpoint_named(self) -> Iterator[None]:
        """Adds to the error of a run that is no longer finite what is left of it."""
        try:
            yield
        except NonFiniteError as error:
            if self.learner.skipped_in_row:
                self.metrics.log(self.step, {"policy/skipped_updates": self.learner.skipped_in_row})
            checkpoint = latest_checkpoint(self.config.run_dir)
            if checkpoint is None:
                kept = "there is no checkpoint"
            else:
                kept = f"{str(checkpoint)!r} is the last good checkpoint: train on from it (clipo export)"
            raise NonFiniteError(
                f"{error}; stopped in step {self.step}, {kept} with other settings, such as a lower "
                "optimizer.learning_rate"
            ) from error

    def save(self, metrics: dict[str, float]) -> None:
        """Writes a checkpoint of the step with these metrics."""
        require_finite(self.learner.policy, self.accelerator)
        position = Position(self.step, self.collector.prompts, self.learner.skipped_in_row, metrics)
        save_checkpoint(self.learner, self.head, position, self.fingerprints)

    def finish(self) -> Path:
        """The trained policy as a plain Hugging Face folder, and the report."""
        run_dir, accelerator = self.config.run_dir, self.accelerator
        require_finite(self.learner.policy, accelerator)
        self.learner.save(run_dir)
        if accelerator.is_main_process:
            write_report(run_dir)
        accelerator.wait_for_everyone()
        accelerator.end_training()
        return run_dir / "report.html"


def _headline(metrics: dict[str, float]) -> str:
    shown = {"accuracy": "rollout/accuracy", "reward": "reward/total", "entropy": "policy/entropy"}
    return "  ".join(f"{name} {metrics[key]:.3f}" for name, key in shown.items())
