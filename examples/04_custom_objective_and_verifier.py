"""A contrastive objective, a reward and a verifier of one's own, on data of one's own.

    python examples/04_custom_objective_and_verifier.py [MODEL]

Needs `pip install 'clipo[train]'`, and neither a network nor a GPU. MODEL is a folder with a policy of the arithmetic
test bed; without one it is built and warm-started on the spot, by half a minute of supervised training.
"""

import json
import random
import sys
from pathlib import Path
from tempfile import mkdtemp

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import softplus
from transformers.utils.logging import disable_progress_bar

from clipo_ops import contrastive_loss, sincere, supcon_out
from clipo_train.config import ClipoConfig, DataConfig, ModelConfig, OptimizerConfig, RolloutConfig, TrainConfig
from clipo_train.report import completions_table, load_metrics
from clipo_train.trainer import Trainer
from clipo_train.types import Example, Verdict

console = Console()

# 1. Data: a line of JSON for each task. Besides `prompt` and `answer` a row may hold whatever the verifier needs.


def write_tasks(path: Path, count: int) -> None:
    """Sums modulo 10 such as 3+4-2=, each with the steps that lead to its answer."""
    rng = random.Random(0)  # noqa: S311 - tasks, no secret
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            value = rng.randint(1, 4)
            prompt, steps = str(value), []
            for _ in range(3):
                sign, operand = rng.choice("+-"), rng.randint(1, 4)
                result = (value + (operand if sign == "+" else -operand)) % 10
                prompt, steps = f"{prompt}{sign}{operand}", [*steps, f"{value}{sign}{operand}={result}"]
                value = result
            file.write(json.dumps({"prompt": f"{prompt}=", "answer": str(value), "steps": steps}) + "\n")


# 2. A verifier: any function of a task and a completion. It may return True or False, a reward in [0, 1], or a Verdict.


def judge(example: Example, completion: str) -> Verdict:
    """Right is who has the right answer; a fifth of the reward is for the steps, so the reward is not the verdict."""
    work, _, answer = completion.partition("#")
    steps, written = list(example.metadata["steps"]), work.split(";")
    share = sum(step in written for step in steps) / len(steps)
    right = answer == example.answer
    return Verdict(
        success=right,  # who is a positive of the contrastive loss
        reward=0.8 * right + 0.2 * share,
        process=written == steps,  # leave it out where nobody can tell
        answer=answer or None,  # what votes in maj@k
    )


# 3. An objective: one loss per anchor, from its logits (similarity - 1) / temperature against the other rollouts.


def nearest_wrong(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """How much nearer the NEAREST wrong rollout is than the right ones are on average; a soft triplet loss."""
    wrong = candidates & ~positives
    nearest = logits.masked_fill(~wrong, -torch.inf).amax(-1)
    right = torch.where(positives, logits, 0).sum(-1) / positives.sum(-1)
    return softplus(nearest - right)


def objectives_table() -> Table:
    """It goes wherever ours go: on a group of two right rollouts side by side, one apart, and one wrong."""
    angles = torch.tensor([0.0, 5.0, 40.0, 60.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    success, groups = torch.tensor([True, True, True, False]), torch.zeros(4, dtype=torch.long)
    table = Table("objective", "right, at 0°", "right, at 5°", "right, at 40°", "wrong, at 60°", title="losses")
    for objective in (supcon_out, sincere, nearest_wrong):
        losses = contrastive_loss(embeddings, success, groups, objective=objective, temperature=0.2, reduction="none")
        table.add_row(objective.__name__, *(f"{loss:.3f}" for loss in losses.tolist()))
    return table


def main(model: str) -> None:
    disable_progress_bar()
    console.print(objectives_table())
    folder = Path(mkdtemp(prefix="clipo-custom-"))
    write_tasks(folder / "tasks.jsonl", 200)
    config = TrainConfig(
        run_dir=folder / "run",
        steps=6,
        model=ModelConfig(path=model),
        # In workers of its own: one that hangs or dies costs a reward of 0. The module is this file.
        data=DataConfig(train=str(folder / "tasks.jsonl"), verifier=f"{Path(__file__).stem}:judge", verifier_workers=1),
        rollout=RolloutConfig(batch_size=64, group_size=8, max_new_tokens=24),
        clipo=ClipoConfig(dim=32),
        optimizer=OptimizerConfig(learning_rate=1e-3, minibatch_size=64, micro_batch_size=64),
    )
    # 4. The configuration, and so YAML, has names of ours only. An objective of yours is set from Python, and again
    # before a run is resumed; all else stays the head's. For a reward that is no such loss, override
    # `Trainer.contrastive_rewards`.
    trainer = Trainer(config, show_progress=False)
    trainer.head.objective = nearest_wrong
    trainer.train()
    shown = ("rollout/accuracy", "reward/outcome", "contrastive/loss", "reward/contrastive", "contrastive/process_gap")
    table = Table("step", *(name.replace("/", "\n") for name in shown), title="training")
    for row in load_metrics(config.run_dir)[1:]:  # step 0 is before training
        table.add_row(str(int(row["step"])), *(f"{row.get(name, 0.0):.3f}" for name in shown))
    console.print(table)
    console.print(completions_table(config.run_dir))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "arithmetic")
