"""How good the policy is, on held-out sets."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import NamedTuple

import torch
from accelerate import Accelerator
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from clipo_train.config import DataConfig, EvaluationConfig, SetConfig, TrainConfig
from clipo_train.data import load_examples
from clipo_train.data_checks import check_examples
from clipo_train.errors import ConfigError
from clipo_train.estimators import interval, majority, pass_at_k
from clipo_train.parallel import gather_list
from clipo_train.policy import EncodedExample, encode_prompts, load_policy
from clipo_train.reasoning import judged_texts
from clipo_train.rollout import RolloutEngine, Sampling
from clipo_train.rollout.loading import load_engine
from clipo_train.terminal import plain
from clipo_train.types import Example, Verdict
from clipo_train.verifiers import VerifierPool, load_verifier

_UNSEEN = 1_000_003
"""Added to the seed of generated sets, which would hold the training set's own tasks otherwise."""


def summarize(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Accuracy, and where every verdict speaks of the process, process accuracy and `process_wrong_among_right`.

    The latter is the share of right answers that came by a wrong way; absent where no answer is right. And how often
    the verifier was out of time, `verifier_timeouts`.
    """
    count = len(verdicts)
    right = [verdict for verdict in verdicts if verdict.success]
    summary = {"accuracy": len(right) / count}
    if all(verdict.process is not None for verdict in verdicts):
        summary["process_accuracy"] = sum(bool(verdict.process) for verdict in verdicts) / count
        if right:
            summary["process_wrong_among_right"] = sum(not verdict.process for verdict in right) / len(right)
    return summary | {"verifier_timeouts": sum(verdict.timed_out for verdict in verdicts)}


def per_prompt(groups: Sequence[Sequence[Verdict]]) -> dict[str, list[float]]:
    """What is averaged over prompts, one value a prompt.

    Args:
        groups: The verdicts on the completions of each prompt, as many for every prompt.

    Returns:
        `accuracy`, the mean over the prompt's completions, and `process_accuracy` if the verifier tells the process.
        With n > 1 completions, `pass_at_k` for k = 2, 4, ... and n; if the verifier tells the process,
        `process_pass_at_k`, for which a completion must be right in both (CoT-Pass@K, arXiv 2506.14245); if it reads
        answers, `maj_at_n`.
    """
    samples = len(groups[0])
    right = [sum(verdict.success for verdict in group) for group in groups]
    values = {"accuracy": [count / samples for count in right]}
    verdicts = [verdict for group in groups for verdict in group]
    sizes = sorted({2**power for power in range(1, samples.bit_length()) if 2**power < samples} | {samples} - {1})
    values |= {f"pass_at_{k}": [pass_at_k(samples, count, k) for count in right] for k in sizes}
    if all(verdict.process is not None for verdict in verdicts):
        values["process_accuracy"] = [sum(bool(verdict.process) for verdict in group) / samples for group in groups]
        sound = [sum(bool(verdict.success and verdict.process) for verdict in group) for group in groups]
        values |= {f"process_pass_at_{k}": [pass_at_k(samples, count, k) for count in sound] for k in sizes}
    if sizes and any(verdict.answer is not None for verdict in verdicts):
        values[f"maj_at_{samples}"] = [majority(group) for group in groups]
    return values


class Outcome(NamedTuple):
    """What became of one completion.

    Attributes:
        verdict: The verifier's.
        length: Its tokens.
        finished: It ended by itself.
    """

    verdict: Verdict
    length: int
    finished: bool


class Evaluator:
    """Evaluates a policy on fixed sets, on one process or on many, with the same result.

    Args:
        sets: Name -> tasks, each with its encoded prompt.
        verifier: Judges the completions; its processes run during an evaluation only.
        config: Sampling and batch size.
        max_new_tokens: Of a response.
        seed: Of the sampling, if any; the training's random state is left as it is.
        accelerator: Of the processes that share the work.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[EncodedExample]],
        verifier: VerifierPool,
        config: EvaluationConfig,
        *,
        max_new_tokens: int,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self.sets = sets
        self.verifier = verifier
        self.samples = config.samples
        self.prompts = max(1, config.batch_size // config.samples)
        self.sampling = Sampling(config.max_new_tokens or max_new_tokens, config.temperature, config.top_p)
        self.seed = seed
        self.accelerator = accelerator

    def run(self, engine: RolloutEngine) -> dict[str, float]:
        """Metrics `eval/<set>/<name>` of the engine's policy, those over prompts with their 95 % interval.

        All processes call it, and get the same.
        """
        metrics: dict[str, float] = {}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        seeds = torch.Generator().manual_seed(self.seed)
        with self.verifier, torch.random.fork_rng(devices):
            for name, examples in self.sets.items():
                for key, value in self._measure(self._share(engine, examples, seeds)).items():
                    metrics[f"eval/{name}/{key}"] = value
        return metrics

    def _share(
        self, engine: RolloutEngine, examples: Sequence[EncodedExample], seeds: torch.Generator
    ) -> list[Outcome]:
        """Outcomes of all completions, in order. Processes take the batches in turn.

        A batch has a seed of its own, so that it does not matter which process generates it, or how many there are.
        Without sampling, what is generated at once does not matter, and every process gets an equal part.
        """
        processes, size = self.accelerator.num_processes, self.prompts
        if self.sampling.temperature == 0:
            size = min(size, -(-len(examples) // processes))
        batches = [examples[start : start + size] for start in range(0, len(examples), size)]
        batch_seeds = torch.randint(2**62, (len(batches),), generator=seeds).tolist()
        own: list[tuple[int, list[Outcome]]] = []
        for turn in range(0, len(batches), processes):
            # Where one is left without a batch it repeats the last, for the engine may want all to keep in step.
            number = min(turn + self.accelerator.process_index, len(batches) - 1)
            torch.manual_seed(batch_seeds[number])
            own.append((number, self._complete(engine, batches[number])))
        found = dict(gather_list(own, self.accelerator))
        return [outcome for number in range(len(batches)) for outcome in found[number]]

    def _complete(self, engine: RolloutEngine, batch: Sequence[EncodedExample]) -> list[Outcome]:
        generation = engine.generate([item.prompt_ids for item in batch], samples=self.samples, sampling=self.sampling)
        judged = judged_texts([item.reasoning for item in batch], generation)
        verdicts = self.verifier.verify([item.example for item in batch for _ in range(self.samples)], judged)
        lengths, finished = generation.response_mask.sum(1).tolist(), generation.finished.tolist()
        return [Outcome(*values) for values in zip(verdicts, lengths, finished, strict=True)]

    def _measure(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        count = len(outcomes)
        verdicts = [outcome.verdict for outcome in outcomes]
        metrics = summarize(verdicts) | {
            "response_length": sum(outcome.length for outcome in outcomes) / count,
            "truncated": 1 - sum(outcome.finished for outcome in outcomes) / count,
        }
        groups = [verdicts[start : start + self.samples] for start in range(0, count, self.samples)]
        for name, values in per_prompt(groups).items():
            low, high = interval(values)
            metrics |= {name: sum(values) / len(values), f"{name}_low": low, f"{name}_high": high}
        return metrics


def configured_verifier(config: DataConfig, name: str) -> VerifierPool:
    """The verifier of that name, with a configuration's bounds."""
    return load_verifier(
        name,
        timeout=config.verifier_timeout,
        workers=config.verifier_workers,
        memory=config.verifier_memory,
        env=config.verifier_env,
    )


def checked(
    items: Sequence[EncodedExample], verifier: VerifierPool, config: DataConfig, name: str
) -> list[EncodedExample]:
    """Those of a data set's rows that the verifier can judge; see `check_examples`."""
    examples = [item.example for item in items]
    kept = check_examples(examples, verifier, source=name, rows=config.check_rows, max_rejected=config.max_rejected)
    return [items[row] for row in kept]


def load_evaluator(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator) -> Evaluator:
    """The evaluator of a configuration, its sets loaded and encoded.

    Raises:
        ConfigError: A set or verifier that cannot be loaded.
    """
    settings, data = config.evaluation, config.data
    verifier = configured_verifier(data, settings.verifier or data.verifier)
    sets = {}
    for name, chosen in settings.sets.items():
        examples = _load_set(config, chosen)
        encoded = encode_prompts(tokenizer, examples, judge_thinking=data.judge_thinking)
        sets[name] = checked(encoded, verifier, data, name)
    return Evaluator(
        sets,
        verifier,
        settings,
        max_new_tokens=config.rollout.max_new_tokens,
        seed=config.seed,
        accelerator=accelerator,
    )


def evaluate(config: TrainConfig) -> dict[str, float]:
    """Evaluates the model of a configuration on its evaluation sets; all processes call it.

    Returns:
        The evaluator's metrics, and with several sets `eval/average/accuracy`, in which each counts the same.

    Raises:
        ConfigError: There is nothing to evaluate on, or something that cannot be loaded.
    """
    sets = config.evaluation.sets
    if not sets:
        raise ConfigError("evaluation.sets: expected at least one set, got none")
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    model, tokenizer = load_policy(config.model, seed=config.seed)
    evaluator = load_evaluator(config, tokenizer, accelerator)
    model = accelerator.prepare_model(model, evaluation_mode=True)  # in the run's precision
    with closing(load_engine(config, model, tokenizer, chain(*evaluator.sets.values()))) as engine:
        metrics = evaluator.run(engine)
    if len(sets) > 1:
        metrics["eval/average/accuracy"] = sum(metrics[f"eval/{name}/accuracy"] for name in sets) / len(sets)
    return metrics


def results_table(metrics: Mapping[str, float]) -> Table:
    """What matters most of `evaluate`'s metrics, for the terminal: a row for each set, with 95 % intervals."""
    sets: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        _, name, metric = key.split("/")
        sets.setdefault(name, {})[metric] = value
    found = dict.fromkeys(metric for values in sets.values() for metric in values)
    most = max((int(match[1]) for metric in found if (match := re.fullmatch(r"pass_at_(\d+)", metric))), default=1)
    wanted = ("accuracy", f"pass_at_{most}", f"maj_at_{most}", "process_accuracy", f"process_pass_at_{most}")
    columns = [metric for metric in (*wanted, "response_length", "truncated") if metric in found]
    if any(values.get("verifier_timeouts") for values in sets.values()):
        columns.append("verifier_timeouts")
    table = Table(title="evaluation")
    table.add_column("set", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_at_", "@").replace("_", " "), justify="right")
    for name, values in sets.items():
        table.add_row(plain(name), *(_cell(values, column) for column in columns))
    return table


def _cell(values: Mapping[str, float], column: str) -> str:
    if column not in values:
        return "–"
    if column in ("response_length", "verifier_timeouts"):
        return f"{values[column]:.1f}".removesuffix(".0")
    between = f" ({values[f'{column}_low']:.2f}–{values[f'{column}_high']:.2f})" if f"{column}_low" in values else ""
    return f"{values[column]:.3f}{between}"


def _load_set(config: TrainConfig, source: str | SetConfig) -> list[Example]:
    data = config.data
    chosen = SetConfig(source, data.options, data.columns) if isinstance(source, str) else source
    return load_examples(
        chosen.source,
        prompt_prefix=data.prompt_prefix,
        prompt_suffix=data.prompt_suffix,
        limit=config.evaluation.limit,
        seed=config.seed + _UNSEEN,
        options=chosen.options,
        columns=chosen.columns,
    )
