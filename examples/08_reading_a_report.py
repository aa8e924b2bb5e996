"""Reading a report: GRPO with and without CLIPO, two seeds each, on one page; and which number says what.

    python examples/08_reading_a_report.py [MODEL]

Needs `pip install 'clipo[train]'`, and neither a network nor a GPU. MODEL is a folder with a policy of the arithmetic
test bed; without one it is built and warm-started on the spot, by half a minute of supervised training.
"""

import sys
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from clipo_train.config import (
    ClipoConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TrainConfig,
)
from clipo_train.policy import load_policy
from clipo_train.report import load_metrics, write_comparison
from clipo_train.trainer import Trainer

console = Console()
SEEDS = (0, 1)
ARMS = {"GRPO": ClipoConfig(enabled=False, dim=64), "GRPO+CLIPO": ClipoConfig(dim=64)}

QUESTIONS = {
    "rollout/informative": "Is there anything to learn? The share of rollouts in groups with right and wrong ones.",
    "advantage/nonzero": "Who gets any signal? The same rollouts, with CLIPO or without: it too needs both kinds.",
    "policy/entropy": "Does it still explore? At 0 all rollouts of a group are the same.",
    "policy/approx_kl": "Is a step too long? Above .05 nats per token, lower the learning rate.",
    "contrastive/anchor_fraction": "How many rollouts does CLIPO speak about?",
    "contrastive/clamp_fraction": "Of these, how many are at the floor, all with one reward? At 1 it says nothing.",
    "reward/contrastive": "What does it take off, on average? The outcome pays 1.",
    "contrastive/process_gap": "Does it favour sound reasoning? Above 0 it does, in rewards; below 0 the reverse.",
    "advantage/process_gap": "And in what the policy is really taught? All rewards have a part in it.",
    "advantage/negative_among_right": "What does it cost? Right rollouts that are made less likely; 0 without CLIPO.",
    "eval/heldout/accuracy": "Did the outcome get better, on prompts it was not trained on?",
    "eval/heldout/process_wrong_among_right": "And the reasoning? Right answers reached by a wrong way; down is good.",
}
"""Some metrics of the glossary, docs/metrics.md, and what to ask of them, in the order of asking."""


def train_all(model: str, folder: Path) -> dict[str, list[Path]]:
    """Arm -> the folder of each seed's run. Both arms begin with one policy."""
    for part in load_policy(ModelConfig(path=model)):
        part.save_pretrained(folder / "first")
    runs: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    for arm, clipo in ARMS.items():
        for seed in SEEDS:
            config = TrainConfig(
                run_dir=folder / f"{arm}-{seed}",
                steps=8,
                seed=seed,
                model=ModelConfig(path=str(folder / "first")),
                rollout=RolloutConfig(batch_size=128, group_size=8, max_new_tokens=24),
                clipo=clipo,
                optimizer=OptimizerConfig(learning_rate=1e-3, minibatch_size=64, micro_batch_size=64),
                evaluation=EvaluationConfig(sets={"heldout": "arithmetic:heldout"}, every=4, limit=64, temperature=1.0),
            )
            Trainer(config, show_progress=False).train()
            runs[arm].append(config.run_dir)
    return runs


def value(run: Path, name: str) -> float | None:
    """A number of a run: of an evaluation the last, of training the mean over steps; None where it is not logged."""
    logged = [row[name] for row in load_metrics(run) if name in row]
    return None if not logged else logged[-1] if name.startswith("eval/") else sum(logged) / len(logged)


def cell(runs: list[Path], name: str) -> str:
    """Mean over seeds, and the smallest and largest, as in the report."""
    values = [found for run in runs if (found := value(run, name)) is not None]
    if not values:
        return "–"
    return f"{sum(values) / len(values):.3f}\n{min(values):.3f}–{max(values):.3f}"


def questions_table(runs: dict[str, list[Path]]) -> Table:
    table = Table(title="what to ask, and of which number", show_lines=True)
    table.add_column("question", ratio=1)
    for arm in runs:
        table.add_column(arm, justify="right", no_wrap=True)
    for name, question in QUESTIONS.items():
        table.add_row(f"[bold]{name}[/]\n{question}", *(cell(of_arm, name) for of_arm in runs.values()))
    return table


def verdict(runs: dict[str, list[Path]], name: str) -> str:
    """What two seeds allow to be said: a sign, and whether both have it."""
    pairs = zip(*([value(run, name) or 0.0 for run in of_arm] for of_arm in runs.values()), strict=True)
    differences = [clipo - grpo for grpo, clipo in pairs]
    told = ", ".join(f"{difference:+.3f}" for difference in differences)
    agree = len({difference > 0 for difference in differences}) == 1
    why = "one sign, as two coins show half of the time" if agree else "they do not even agree on the sign"
    return f"{name}: CLIPO less GRPO, seed by seed: {told}: {why}."


def main(model: str) -> None:
    disable_progress_bar()
    folder = Path(mkdtemp(prefix="clipo-report-"))
    runs = train_all(model, folder)
    report = write_comparison([run for of_arm in runs.values() for run in of_arm], folder / "comparison.html")
    console.print(questions_table(runs))
    for name in ("eval/heldout/accuracy", "eval/heldout/process_wrong_among_right"):
        console.print(verdict(runs, name))
    console.print(
        "Two seeds and eight steps show how to read, not what is true: for that, pair arms over many seeds with "
        "`clipo study`."
    )
    console.print(f"All curves, as means within bands over seeds: {report}", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "arithmetic")
