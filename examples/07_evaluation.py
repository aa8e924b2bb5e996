"""Evaluation: several policies on several sets, by avg@k, pass@k, maj@k and process accuracy, with intervals.

    python examples/07_evaluation.py [MODEL]

Needs `pip install 'clipo[train]'`, and neither a network nor a GPU. MODEL is a folder with a policy of the arithmetic
test bed; without one it is built and warm-started on the spot, by half a minute of supervised training.
"""

import json
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
from clipo_train.estimators import interval, majority, pass_at_k
from clipo_train.evaluation import evaluate
from clipo_train.policy import load_policy
from clipo_train.trainer import Trainer
from clipo_train.types import Verdict

console = Console()
SAMPLES = 8

Metrics = dict[str, float]


def by_hand() -> Table:
    """What the numbers are, on one prompt whose truth is 7, and on the means of four prompts."""
    said = ["7", "7", "7", "3", "3", "3", "3", "5"]
    verdicts = [Verdict(answer == "7", float(answer == "7"), answer=answer) for answer in said]
    right = sum(verdict.success for verdict in verdicts)
    table = Table("number", "value", "of the answers " + " ".join(said), title="by hand")
    table.add_row("avg@8", f"{right / len(said):.3f}", "the mean of right and wrong")
    for k in (1, 2, 4, 8):
        value = pass_at_k(len(said), right, k)
        table.add_row(f"pass@{k}", f"{value:.3f}", "chance that one of k drawn from these 8 is right")
    table.add_row("maj@8", f"{majority(verdicts):.3f}", "3 has most votes, and is wrong")
    low, high = interval([0.375, 1.0, 0.5, 0.0])
    table.add_row("interval", f"{low:.2f}–{high:.2f}", "of the mean over prompts with .375, 1, .5 and 0")
    return table


def make_policies(model: str, folder: Path) -> dict[str, tuple[str, float]]:
    """Name -> folder and temperature: as supervised training leaves it, sampled more coldly, and after a little RL."""
    first, trained = folder / "first", folder / "run"
    for part in load_policy(ModelConfig(path=model)):
        part.save_pretrained(first)
    config = TrainConfig(
        run_dir=trained,
        steps=10,
        model=ModelConfig(path=str(first)),
        rollout=RolloutConfig(batch_size=128, group_size=8, max_new_tokens=24),
        clipo=ClipoConfig(objective="supcon_out", dim=64),
        optimizer=OptimizerConfig(learning_rate=1e-3, minibatch_size=64, micro_batch_size=64),
    )
    Trainer(config, show_progress=False).train()
    return {"first": (str(first), 1.0), "colder": (str(first), 0.5), "after RL": (str(trained / "final"), 1.0)}


def evaluate_all(policies: dict[str, tuple[str, float]]) -> dict[str, Metrics]:
    """Name -> its metrics `eval/<set>/<name>`, each mean over prompts with `_low` and `_high`. All see the same."""
    results = {}
    for name, (path, temperature) in policies.items():
        settings = EvaluationConfig(
            sets={"heldout": "arithmetic:heldout", "long": "arithmetic:long"},
            samples=SAMPLES,
            temperature=temperature,
            limit=32,  # prompts of each set: enough to see the table, far too few to tell close policies apart
            max_new_tokens=40,
        )
        results[name] = evaluate(TrainConfig(model=ModelConfig(path=path), evaluation=settings))
    return results


def short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def results_table(results: dict[str, Metrics]) -> Table:
    """A row for each policy and set."""
    shown = {
        "accuracy": f"avg@{SAMPLES}",
        f"pass_at_{SAMPLES}": f"pass@{SAMPLES}",
        f"maj_at_{SAMPLES}": f"maj@{SAMPLES}",
        "process_accuracy": "process",
        f"process_pass_at_{SAMPLES}": f"process\npass@{SAMPLES}",
    }
    table = Table(title="means over prompts, with 95 % intervals")
    table.add_column("set")
    table.add_column("policy")
    for heading in shown.values():
        table.add_column(heading, justify="right")
    for name in ("heldout", "long"):
        for policy, metrics in results.items():
            cells = []
            for metric in shown:
                key = f"eval/{name}/{metric}"
                cells.append(f"{short(metrics[key])}\n{short(metrics[f'{key}_low'])}–{short(metrics[f'{key}_high'])}")
            table.add_row(name, policy, *cells)
        table.add_section()
    return table


def compare(results: dict[str, Metrics], one: str, other: str, part: str) -> str:
    """In words, whether two policies can be told apart on a set. It says nothing of other seeds of training."""
    mine, theirs = (
        {end: results[name][f"eval/{part}/accuracy_{end}"] for end in ("low", "high")} for name in (one, other)
    )
    if mine["low"] > theirs["high"]:
        verdict = "is better"
    elif mine["high"] < theirs["low"]:
        verdict = "is worse"
    else:
        verdict = "cannot be told apart: the intervals overlap, and it takes more prompts"
    return f"{part}: {one!r} against {other!r} by avg@{SAMPLES}: {verdict}."


def main(model: str) -> None:
    disable_progress_bar()
    console.print(by_hand())
    folder = Path(mkdtemp(prefix="clipo-evaluation-"))
    results = evaluate_all(make_policies(model, folder))
    console.print(results_table(results))
    for part in ("heldout", "long"):  # trained on sums of three operations, as in `heldout`; `long` has more
        console.print(compare(results, "after RL", "first", part))
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    console.print(f"All {len(results['first'])} numbers of each policy: {path}", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "arithmetic")
