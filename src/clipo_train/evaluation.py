"""How good the policy is, on held-out sets."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from clipo_train.config import EvaluationConfig, TrainConfig
from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.policy import EncodedExample, encode_prompts, load_policy
from clipo_train.rollout import RolloutEngine, Sampling
from clipo_train.rollout.loading import load_engine
from clipo_train.types import Verdict
from clipo_train.verifiers import VerifierPool, load_verifier


def summarize(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Accuracy, and where every verdict speaks of the process, process accuracy and `process_wrong_among_right`.

    The latter is the share of right answers that came by a wrong way; absent where no answer is right.
    """
    count = len(verdicts)
    right = [verdict for verdict in verdicts if verdict.success]
    summary = {"accuracy": len(right) / count}
    if all(verdict.process is not None for verdict in verdicts):
        summary["process_accuracy"] = sum(bool(verdict.process) for verdict in verdicts) / count
        if right:
            summary["process_wrong_among_right"] = sum(not verdict.process for verdict in right) / len(right)
    return summary


class Evaluator:
    """Evaluates a policy on fixed sets.

    Args:
        sets: Name -> tasks, each with its encoded prompt.
        verifier: Judges the completions.
        config: Sampling and batch size.
        max_new_tokens: Of a response.
        seed: Of the sampling, if any; the training's random state is left as it is.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[EncodedExample]],
        verifier: VerifierPool,
        config: EvaluationConfig,
        *,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.sets = sets
        self.verifier = verifier
        self.batch_size = config.batch_size
        self.sampling = Sampling(config.max_new_tokens or max_new_tokens, config.temperature)
        self.seed = seed

    def run(self, engine: RolloutEngine) -> dict[str, float]:
        """Metrics `eval/<set>/<name>` of the engine's policy."""
        metrics: dict[str, float] = {}
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(self.seed)
            for name, examples in self.sets.items():
                for key, value in self._one(engine, examples).items():
                    metrics[f"eval/{name}/{key}"] = value
        return metrics

    def _one(self, engine: RolloutEngine, examples: Sequence[EncodedExample]) -> dict[str, float]:
        verdicts: list[Verdict] = []
        length = finished = 0
        for start in range(0, len(examples), self.batch_size):
            batch = examples[start : start + self.batch_size]
            generation = engine.generate([item.prompt_ids for item in batch], samples=1, sampling=self.sampling)
            verdicts += self.verifier.verify([item.example for item in batch], generation.texts)
            length += int(generation.response_mask.sum())
            finished += int(generation.finished.sum())
        count = len(examples)
        return summarize(verdicts) | {"response_length": length / count, "truncated": 1 - finished / count}


def load_evaluator(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, verifier: VerifierPool) -> Evaluator:
    """The evaluator of a configuration, its sets loaded and encoded.

    Raises:
        ConfigError: A set that cannot be loaded.
    """
    settings = config.evaluation
    sets = {
        name: encode_prompts(
            tokenizer,
            load_examples(
                source,
                prompt_prefix=config.data.prompt_prefix,
                prompt_suffix=config.data.prompt_suffix,
                limit=settings.limit,
                seed=config.seed,
                options=config.data.options,
            ),
        )
        for name, source in settings.sets.items()
    }
    return Evaluator(sets, verifier, settings, max_new_tokens=config.rollout.max_new_tokens, seed=config.seed)


def evaluate(config: TrainConfig) -> dict[str, float]:
    """Evaluates the model of a configuration on its evaluation sets.

    Raises:
        ConfigError: There is nothing to evaluate on, or something that cannot be loaded.
    """
    if not config.evaluation.sets:
        raise ConfigError("evaluation.sets: wanted at least one set, got none")
    model, tokenizer = load_policy(config.model, seed=config.seed)
    move: Any = model.to  # its stub is wrong
    model = move("cuda" if torch.cuda.is_available() else "cpu")
    with load_verifier(config.data.verifier, timeout=config.data.verifier_timeout) as verifier:
        evaluator = load_evaluator(config, tokenizer, verifier)
        with closing(load_engine(config, model, tokenizer, chain(*evaluator.sets.values()))) as engine:
            return evaluator.run(engine)
