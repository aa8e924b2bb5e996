"""Adapters and the chunked head, spread over two processes, train to what one process trains to without the latter."""

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
CHUNKED, LORA = ("--model.chunked_head", "true"), ("--model.lora.rank", "4")


@pytest.fixture
def train(config_file: Callable[..., Path], warm: Path, tmp_path: Path) -> Callable[..., Path]:
    config = config_file(
        steps=2,
        model={"path": str(warm)},
        rollout={"batch_size": 32, "group_size": 4, "max_new_tokens": 24},
        optimizer={"minibatch_size": 16, "micro_batch_size": 4},
        loss={"kl_weight": 0.01},
    )

    def run(name: str, processes: int, *arguments: str) -> Path:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        done = subprocess.run(
            [*command, str(SEEDED), "train", str(config), "--run_dir", str(tmp_path / name), *arguments],
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
@pytest.mark.parametrize("lora", [(), LORA], ids=["all", "lora"])
def test_two_processes_equal_one(train: Callable[..., Path], lora: tuple[str, ...], kind: str) -> None:
    one = train("one", 1, *lora)
    two = train("two", 2, *lora, *CHUNKED, *(["--fsdp2"] if kind == "fsdp2" else []))
    files = ["final/model.safetensors", *(["adapter/adapter_model.safetensors"] if lora else [])]
    for file in files:
        expected, found = load_file(one / file), load_file(two / file)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
    for row, other in zip(load_metrics(one), load_metrics(two), strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {key for key in row if key.startswith("time/")}:
            assert row[name] == pytest.approx(other[name], abs=1e-4, rel=1e-3), name
    assert load_metrics(one)[-1]["policy/grad_norm"] > 0
