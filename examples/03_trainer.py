"""The reference trainer from Python: configure, train, look at the numbers, evaluate, and use what it exported.

    python examples/03_trainer.py [MODEL]

Needs `pip install 'clipo[train]'`, and neither a network nor a GPU. MODEL is a folder with a policy of the arithmetic
test bed; without one it is built and warm-started on the spot, by half a minute of supervised training.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from clipo_train.config import (
    ClipoConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TrainConfig,
)
from clipo_train.config.files import PRESETS, flat_config, read_fields
from clipo_train.evaluation import evaluate, results_table
from clipo_train.report import load_metrics
from clipo_train.testbed.arithmetic import problems, verify
from clipo_train.trainer import Trainer

console = Console()

SHOWN = (
    "rollout/accuracy",
    "rollout/process_accuracy",
    "reward/contrastive",
    "contrastive/loss",
    "policy/entropy",
    "time/step",
)


def configure(model: str, run_dir: Path) -> TrainConfig:
    """A run. What is not given has a default; all fields are those of the YAML files, and are checked as there."""
    return TrainConfig(
        run_dir=run_dir,  # must not exist yet
        steps=10,
        model=ModelConfig(path=model),  # yours: "Qwen/Qwen3-0.6B"
        data=DataConfig(train="arithmetic:train", verifier="arithmetic"),  # yours: "train.jsonl" and "math"
        rollout=RolloutConfig(batch_size=128, group_size=8, max_new_tokens=24),
        clipo=ClipoConfig(objective="supcon_out", dim=64),  # enabled=False is GRPO
        optimizer=OptimizerConfig(learning_rate=1e-3, minibatch_size=64, micro_batch_size=64),
        evaluation=EvaluationConfig(sets={"heldout": "arithmetic:heldout"}, every=5, limit=64, temperature=1.0),
    )


def presets_table() -> Table:
    """Methods by their papers' numbers: what each sets that is no default of ours. Fields of yours win over them."""
    table = Table("preset", "sets", title='read_fields([{"preset": "dapo+clipo"}, {...}])')
    for name in PRESETS:
        fields = flat_config(read_fields([{"preset": name}])).items() - flat_config(TrainConfig(preset=name)).items()
        if name.endswith("+clipo"):
            table.add_row(name, "\n".join(f"{field}: {value}" for field, value in sorted(fields)))
    return table


def train(config: TrainConfig) -> list[dict[str, float]]:
    """All of it: `train` makes the run's folder, and returns the path of its report."""
    trainer = Trainer(config, show_progress=False)
    report = trainer.train()
    console.print(f"Report: {report}", soft_wrap=True)
    return load_metrics(config.run_dir)  # a dict per step, from metrics.jsonl; step 0 is the policy before RL


def metrics_table(metrics: list[dict[str, float]]) -> Table:
    """Some of the numbers of each step; docs/metrics.md says what each is, and what is healthy."""
    table = Table(title="training")
    for heading in ("step", *SHOWN):
        table.add_column(heading.replace("/", "\n").replace("_", " "), justify="right")
    for row in metrics[1:]:
        table.add_row(str(int(row["step"])), *(f"{row[name]:.2f}" for name in SHOWN))
    return table


def evaluate_final(config: TrainConfig) -> Table:
    """The final policy on other sets; `clipo eval RUN` does the same. Several samples a prompt: 07_evaluation.py."""
    sets = {"heldout": "arithmetic:heldout", "long": "arithmetic:long"}
    final = replace(
        config,
        model=ModelConfig(path=str(config.run_dir / "final")),
        evaluation=EvaluationConfig(sets=sets, temperature=1.0, limit=32, max_new_tokens=40),
    )
    return results_table(evaluate(final))


def generate_table(folder: Path) -> Table:
    """`final` is a plain Hugging Face folder, so that nothing of ours is needed to use it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tasks = problems("heldout")[:5]
    prompts = tokenizer([task.prompt for task in tasks], return_tensors="pt", padding=True, return_token_type_ids=False)
    tokens = model.generate(**prompts, max_new_tokens=24, do_sample=False)
    texts = tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    table = Table("prompt", "response", "answer", "right", "every step too", title="what it writes, greedily")
    for task, text in zip(tasks, texts, strict=True):
        verdict = verify(task, text)
        table.add_row(
            task.prompt, text, task.answer, *("yes" if ok else "no" for ok in (verdict.success, verdict.process))
        )
    return table


def main(model: str) -> None:
    disable_progress_bar()
    console.print(presets_table())
    config = configure(model, Path(mkdtemp(prefix="clipo-trainer-")) / "run")
    metrics = train(config)
    console.print(metrics_table(metrics))
    first, last = (row["eval/heldout/accuracy"] for row in (metrics[0], metrics[-1]))
    console.print(f"Held-out accuracy: {first:.2f} before, {last:.2f} after {config.steps} steps.")
    console.print(evaluate_final(config))
    console.print(generate_table(config.run_dir / "final"))
    console.print("The run's folder:", ", ".join(sorted(path.name for path in config.run_dir.iterdir())))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "arithmetic")
