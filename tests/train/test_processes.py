"""Two processes train and evaluate to what one does, on the same batches of rollouts."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from clipo_train.config.files import load_config
from clipo_train.data import load_examples
from clipo_train.evaluation import evaluate
from clipo_train.report import load_metrics

SEEDED = Path(__file__).with_name("seeded.py")


def launch(processes: int, *arguments: str) -> str:
    """Standard output of a command of `clipo` on so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=400, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def train(warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("processes")
    values = {
        "steps": 3,
        "model": {"path": str(warm)},
        "rollout": {"batch_size": 32, "group_size": 4, "max_new_tokens": 24, "dynamic_sampling": True},
        "optimizer": {"learning_rate": 1e-3, "minibatch_size": 16, "micro_batch_size": 4},
        "loss": {"kl_weight": 0.01},
        "clipo": {"dim": 16},
        "evaluation": {"sets": {"heldout": "arithmetic:heldout"}, "limit": 7, "every": 2},
        "checkpoint": {"every": 2},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values))

    def run(name: str, processes: int, *arguments: str) -> Path:
        launch(processes, str(SEEDED), "train", str(config), "--run_dir", str(folder / name), *arguments)
        return folder / name

    return run


@pytest.fixture(scope="module")
def one(train: Callable[..., Path]) -> Path:
    """A run on one process."""
    return train("one", 1)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_that_resume_equal_one_that_does_not(one: Path, train: Callable[..., Path], kind: str) -> None:
    arguments = ["--fsdp2"] if kind == "fsdp2" else []
    train(kind, 2, "--steps", "2", *arguments)
    two = train(kind, 2, "--resume", *arguments)
    expected = load_file(one / "final" / "model.safetensors")
    found = load_file(two / "final" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
    assert max(row["rollout/sampling_rounds"] for row in load_metrics(one)[1:]) > 1
    for row, other in zip(load_metrics(one), load_metrics(two), strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {key for key in row if key.startswith("time/")}:
            assert row[name] == pytest.approx(other[name], abs=1e-4, rel=1e-3), name
    written = [load_file(run / "checkpoints" / "step-00000003" / "policy" / "model.safetensors") for run in (one, two)]
    assert written[0].keys() == written[1].keys()
    states = [torch.load(run / "checkpoints" / "step-00000003" / "random.pt", weights_only=True) for run in (one, two)]
    assert [len(state) for state in states] == [1, 2]


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.0, "samples": 3, "batch_size": 9}], ids=["greedy", "sampled"]
)
def test_two_processes_evaluate_to_the_same_numbers(
    sampling: dict[str, float], config_file: Callable[..., Path], warm: Path, tmp_path: Path
) -> None:
    """On 13 tasks, in batches that do not come out even, with a right answer to every other."""
    tasks = load_examples("arithmetic:heldout", limit=13)
    rows = [{"prompt": task.prompt, "answer": task.answer if n % 2 else "x"} for n, task in enumerate(tasks)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    sets = {"rows": str(source), "rep": "arithmetic:rep"}
    path = config_file(
        model={"path": str(warm)}, evaluation={"sets": sets, "limit": 13, "max_new_tokens": 20} | sampling
    )
    config = load_config(path)
    expected = evaluate(config)
    assert 0 < expected["eval/rows/accuracy"] < 0.5
    assert json.loads(launch(2, "-m", "clipo_train.cli", "eval", str(path))) == expected
    assert (evaluate(dataclasses.replace(config, seed=1)) == expected) is not bool(sampling)
