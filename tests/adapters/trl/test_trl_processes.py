"""Two processes, with a group on both, keep one head and train to what one process trains to."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

SHARING = Path(__file__).with_name("sharing.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def train(processes: int, policy: Path, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    done = subprocess.run(
        [*LAUNCH, str(processes), str(SHARING), str(policy), str(folder)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def test_two_processes_equal_one(policy: Path, tmp_path: Path) -> None:
    (one,) = train(1, policy, tmp_path / "one")
    first, second = train(2, policy, tmp_path / "two")
    weight = first["head"]["projection"]["weight"]
    assert weight.equal(second["head"]["projection"]["weight"])
    assert first["head"]["generator"].equal(second["head"]["generator"])
    torch.testing.assert_close(weight, one["head"]["projection"]["weight"], rtol=0, atol=1e-5)
    assert one["contrastive"].lt(0).all(), "there is something to compare"
    torch.testing.assert_close(first["contrastive"], one["contrastive"], rtol=0, atol=1e-5)
    for name, value in first["policy"].items():
        torch.testing.assert_close(value, one["policy"][name], rtol=0, atol=1e-5, msg=name)
