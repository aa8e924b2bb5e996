"""The reference trainer, from prompts to an updated policy. Read `Trainer.train`, then `Trainer._step`."""

import copy
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from jaxtyping import Float
from torch import Tensor
from transformers import get_scheduler

from clipo_ops import aggregate, aggregate_denominator, mean_pool, token_entropy, token_logprobs
from clipo_train.checkpoint import load_checkpoint, save_checkpoint
from clipo_train.config import TrainConfig, dump_config
from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.evaluation import load_evaluator, summarize
from clipo_train.head import ClipoHead
from clipo_train.metrics import MetricsLog, Stopwatch, progress_bar
from clipo_train.objective import Credit, assign_credit, policy_loss
from clipo_train.policy import EncodedExample, encode_prompts, forward, load_policy
from clipo_train.report import write_report
from clipo_train.rollout import Generation, Rollouts, Sampling
from clipo_train.rollout.loading import load_engine
from clipo_train.rollout.mismatch import logprob_gap, require_agreement
from clipo_train.types import Message
from clipo_train.verifiers import load_verifier


class Trainer:
    """Trains a policy by GRPO, with CLIPO's contrastive reward if `config.clipo.enabled`.

    Args:
        config: The run. Its folder is created by `train`, not before.

    Raises:
        ConfigError: Anything in the configuration that cannot work, or a run folder that must not be overwritten.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self._check_run_dir()
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with=list(config.logging.trackers) or None,
            project_dir=config.run_dir,
        )
        if self.accelerator.num_processes > 1:
            raise ConfigError(f"accelerate: wanted one process, got {self.accelerator.num_processes}")
        set_seed(config.seed)
        self.progress = progress_bar()
        with self.progress:
            self._load_model()
        self._load_data()
        self.verifier = load_verifier(config.data.verifier, timeout=config.data.verifier_timeout)
        self.evaluator = load_evaluator(config, self.tokenizer, self.verifier)
        prompts = chain(self.examples, *self.evaluator.sets.values())
        self.engine = load_engine(config, self.policy, self.tokenizer, prompts)
        self.syncs = 0
        self.clock = Stopwatch(self.accelerator.device)
        self.metrics = MetricsLog(config.run_dir, self.accelerator)
        self.step = 0

    def train(self) -> Path:
        """Runs to the last step.

        Returns:
            The path of the report.
        """
        config = self.config
        with self.verifier, closing(self.engine), self.progress:
            self._open_run_dir()
            if self.step == 0:
                self.metrics.log(0, self.evaluator.run(self.engine))
            task = self.progress.add_task("training", total=config.steps, completed=self.step, note="")
            while self.step < config.steps:
                metrics = self._step()
                if self._due(config.evaluation.every):
                    metrics |= self.evaluator.run(self.engine)
                self.metrics.log(self.step, metrics)
                if self._due(config.checkpoint.every):
                    save_checkpoint(config.run_dir, self.step, self.accelerator, self.head, keep=config.checkpoint.keep)
                self.progress.update(task, advance=1, note=_headline(metrics))
        self._export()
        return write_report(config.run_dir)

    def _step(self) -> dict[str, float]:
        """Rollouts, their credit, and a pass of updates over them."""
        self.step += 1
        with self.clock("step"):
            rollouts = self._collect()
            logprobs, reference, entropy, pooled = self._score(rollouts.generation)
            gap = logprob_gap(rollouts.generation, logprobs)
            if self.syncs <= 1:  # the weights it began with, and those of the first update
                require_agreement(gap, self.config.rollout.logprob_tolerance)
            warming_up = self.head is not None and self.head.warming_up
            with self.clock("contrastive"):
                credit = assign_credit(rollouts, pooled, self.head, self.config.loss)
            update: dict[str, float] = {}
            if not warming_up:
                with self.clock("update"):
                    update = self._update(rollouts.generation, credit, logprobs, reference)
                    self.engine.sync()
                    self.syncs += 1
        self.metrics.completions(self._samples(rollouts, credit))
        return self._describe(rollouts, credit) | {"policy/entropy": entropy} | gap | update | self.clock.read()

    def _collect(self) -> Rollouts:
        """Samples a group of completions for each of the step's prompts, and has them judged."""
        settings = self.config.rollout
        prompts = self._prompts()
        with self.clock("rollout"):
            sampling = Sampling(settings.max_new_tokens, settings.temperature)
            generation = self.engine.generate(
                [item.prompt_ids for item in prompts], samples=settings.group_size, sampling=sampling
            )
        with self.clock("verify"):
            examples = [item.example for item in prompts for _ in range(settings.group_size)]
            verdicts = self.verifier.verify(examples, generation.texts)
        return Rollouts(examples, generation, verdicts, settings.group_size)

    def _prompts(self) -> list[EncodedExample]:
        """The step's prompts: epoch after epoch, each in an order of its own that depends on the seed alone."""
        count = self.config.rollout.batch_size // self.config.rollout.group_size
        total = len(self.examples)
        chosen: list[EncodedExample] = []
        for place in range((self.step - 1) * count, self.step * count):
            epoch, index = divmod(place, total)
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            if not chosen or index == 0:
                order = torch.randperm(total, generator=generator)
            chosen.append(self.examples[int(order[index])])
        return chosen

    @torch.no_grad()
    def _score(self, generation: Generation) -> tuple[Tensor, Tensor | None, float, Tensor]:
        """One forward over the rollouts: log-probabilities (also the reference's), entropy, pooled hidden states."""
        self.model.eval()
        temperature = self.config.rollout.temperature
        logprobs, reference, entropies, pooled = [], [], [], []
        for rows in torch.arange(len(generation.tokens)).split(self.config.optimizer.micro_batch_size):
            mask = generation.response_mask[rows]
            response = generation.tokens[rows][:, -mask.shape[1] :]
            with self.clock("score"):
                logits, hidden = forward(self.model, generation, rows)
                logprobs.append(token_logprobs(logits, response, temperature=temperature))
                entropies.append(token_entropy(logits, temperature=temperature))
                if self.reference is not None:
                    ref_logits, _ = forward(self.reference, generation, rows)
                    reference.append(token_logprobs(ref_logits, response, temperature=temperature))
            with self.clock("contrastive"):
                if self.head is not None:
                    pooled.append(mean_pool(hidden, mask))
        return (
            torch.cat(logprobs),
            torch.cat(reference) if reference else None,
            float(aggregate(torch.cat(entropies), generation.response_mask)),
            torch.cat(pooled) if pooled else torch.empty(0),
        )

    def _update(
        self,
        generation: Generation,
        credit: Credit,
        old_logprobs: Float[Tensor, "rollouts tokens"],
        ref_logprobs: Float[Tensor, "rollouts tokens"] | None,
    ) -> dict[str, float]:
        """One optimizer step per mini-batch; the result does not depend on the micro-batch size."""
        settings, totals, norms = self.config.optimizer, [], []
        self.model.train()
        for minibatch in torch.randperm(len(old_logprobs)).split(settings.minibatch_size):
            mask = generation.response_mask[minibatch]
            max_length = self.config.rollout.max_new_tokens
            denominator = aggregate_denominator(mask, mode=self.config.loss.aggregation, max_length=max_length)
            tokens = aggregate_denominator(mask)
            for rows in minibatch.split(settings.micro_batch_size):
                logits, _ = forward(self.model, generation, rows)
                row_mask = generation.response_mask[rows]
                response = generation.tokens[rows][:, -row_mask.shape[1] :]
                result = policy_loss(
                    token_logprobs(logits, response, temperature=self.config.rollout.temperature),
                    old_logprobs[rows],
                    None if ref_logprobs is None else ref_logprobs[rows],
                    credit.advantages[rows],
                    row_mask,
                    self.config.loss,
                    denominator=denominator,
                    tokens=tokens,
                    rollout_logprobs=None if generation.logprobs is None else generation.logprobs[rows],
                )
                self.accelerator.backward(result.loss)
                totals.append(torch.stack([value.detach() for value in result]))
            norms.append(self.accelerator.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm))
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        loss, clipped, moved = (torch.stack(totals).sum(0) / len(norms)).tolist()
        return {
            "policy/loss": loss,
            "policy/clip_fraction": clipped,
            "policy/approx_kl": moved,
            "policy/grad_norm": float(torch.stack(norms).mean()),
            "policy/learning_rate": self.scheduler.get_last_lr()[0],
        }

    def _describe(self, rollouts: Rollouts, credit: Credit) -> dict[str, float]:
        """What the step's rollouts were like."""
        total = (credit.outcome + credit.contrastive).view(-1, rollouts.group_size)
        constant = (total == total[:, :1]).all(1)
        generation = rollouts.generation
        metrics = {f"rollout/{name}": value for name, value in summarize(rollouts.verdicts).items()} | {
            "rollout/response_length": float(generation.response_mask.sum(1).float().mean()),
            "rollout/truncated": float((~generation.finished).float().mean()),
            "reward/outcome": float(credit.outcome.mean()),
            "reward/contrastive": float(credit.contrastive.mean()),
            "reward/total": float(total.mean()),
            "groups/degenerate": float(constant.float().mean()),
        }
        if self.head is not None:
            metrics |= {f"contrastive/{name}": value for name, value in self.head.metrics.items()}
        return metrics

    def _samples(self, rollouts: Rollouts, credit: Credit) -> list[dict[str, object]]:
        """Rollouts to look at: as many groups' first ones as there is room for, then their second ones, and so on."""
        count, groups = len(rollouts.verdicts), len(rollouts.verdicts) // rollouts.group_size
        order = torch.arange(count).view(groups, -1).T.flatten().tolist()
        return [
            {
                "step": self.step,
                "prompt": _text(rollouts.examples[i].prompt),
                "completion": rollouts.generation.texts[i],
                "answer": rollouts.examples[i].answer,
                "success": rollouts.verdicts[i].success,
                "process": rollouts.verdicts[i].process,
                "outcome": float(credit.outcome[i]),
                "contrastive": float(credit.contrastive[i]),
                "advantage": float(credit.advantages[i]),
            }
            for i in order[: self.config.logging.completions]
        ]

    def _due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    # Setting up and leaving.

    def _check_run_dir(self) -> None:
        config = self.config
        exists = config.run_dir.exists() and (not config.run_dir.is_dir() or any(config.run_dir.iterdir()))
        if exists and not config.resume:
            raise ConfigError(f"run_dir: wanted a new folder (or resume), got {str(config.run_dir)!r}, which exists")
        if config.resume and not exists:
            raise ConfigError(
                f"run_dir: wanted the folder of a run to resume, got {str(config.run_dir)!r}, which is none"
            )

    def _load_model(self) -> None:
        """Policy, reference, optimizer and head."""
        config, settings = self.config, self.config.optimizer
        task = self.progress.add_task("loading the model", total=None, note="")
        self.policy, self.tokenizer = load_policy(
            config.model,
            seed=config.seed,
            progress=lambda done, total: self.progress.update(
                task, description="warm start", completed=done, total=total
            ),
        )
        self.progress.remove_task(task)
        self.policy.to(self.accelerator.device)
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False) if config.loss.kl_weight else None
        optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        updates = config.steps * (config.rollout.batch_size // settings.minibatch_size)
        scheduler = get_scheduler(settings.schedule, optimizer, settings.warmup_updates, updates)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(self.policy, optimizer, scheduler)
        self.head = None
        if config.clipo.enabled:
            hidden = self.policy.config.get_text_config().hidden_size
            self.head = ClipoHead(hidden, config.clipo, seed=config.seed, device=self.accelerator.device)

    def _load_data(self) -> None:
        data = self.config.data
        examples = load_examples(
            data.train,
            prompt_prefix=data.prompt_prefix,
            prompt_suffix=data.prompt_suffix,
            limit=data.limit,
            seed=self.config.seed,
            options=data.options,
        )
        self.examples = encode_prompts(self.tokenizer, examples, max_tokens=self.config.rollout.max_prompt_tokens)

    def _open_run_dir(self) -> None:
        """Creates the run's folder, or goes on in it."""
        run_dir = self.config.run_dir
        if self.config.resume:
            self.step = load_checkpoint(run_dir, self.accelerator, self.head)
            self.engine.sync()
            self.metrics.rewind(self.step)
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.yaml").write_text(dump_config(self.config), encoding="utf-8")
        self.accelerator.init_trackers(self.config.logging.project)

    def _export(self) -> None:
        """The trained policy as a plain Hugging Face folder."""
        self.accelerator.end_training()
        self.policy.save_pretrained(self.config.run_dir / "final")
        self.tokenizer.save_pretrained(self.config.run_dir / "final")


def _text(prompt: str | tuple[Message, ...]) -> str:
    return (
        prompt
        if isinstance(prompt, str)
        else "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    )


def _headline(metrics: dict[str, float]) -> str:
    shown = {"accuracy": "rollout/accuracy", "reward": "reward/total", "entropy": "policy/entropy"}
    return "  ".join(f"{name} {metrics[key]:.3f}" for name, key in shown.items())
