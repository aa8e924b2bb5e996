"""Two processes train to the parameters that one trains to, on the same batches of rollouts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipo_train.report import load_metrics

SEEDED = Path(__file__).with_name("seeded.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture
def train(config_file: Callable[..., Path], warm: Path, tmp_path: Path) -> Callable[..., Path]:
    config = config_file(
        steps=3,
        model={"path": str(warm)},
        rollout={"batch_size": 32, "group_size": 4, "max_new_tokens": 24},
        optimizer={"minibatch_size": 16, "micro_batch_size": 4},
        loss={"kl_weight": 0.01},
        checkpoint={"every": 2},
    )

    def run(name: str, processes: int, *arguments: str) -> Path:
        command = [*LAUNCH, "--nproc_per_node", str(processes), str(SEEDED), "train", str(config)]
        done = subprocess.run(
            [*command, "--run_dir", str(tmp_path / name), *arguments],
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    return run


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_equal_one(train: Callable[..., Path], kind: str) -> None:
    one, two = train("one", 1), train("two", 2, *(["--fsdp2"] if kind == "fsdp2" else []))
    assert len(list((two / "checkpoints" / "step-00000003").glob("random_states_*"))) == 2
    expected = load_file(one / "final" / "model.safetensors")
    for name, value in load_file(two / "final" / "model.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
    for row, other in zip(load_metrics(one), load_metrics(two), strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {key for key in row if key.startswith("time/")}:
            assert row[name] == pytest.approx(other[name], abs=1e-4, rel=1e-3), name
