"""A study of one step, with a policy of random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy(untrained: Path) -> Path:
    return untrained


@pytest.fixture
def study_file(tmp_path: Path, policy: Path) -> Callable[..., Path]:
    """Writes a study of two arms and two seeds, with fields updated by keyword."""

    def write(**fields: Any) -> Path:
        values: dict[str, Any] = {
            "title": "A small study",
            "output": str(tmp_path / "study"),
            "seeds": 2,
            "workers": 2,
            "primary": ["eval/heldout/accuracy", "policy/entropy"],
            "secondary": ["advantage/nonzero"],
            "base": {
                "steps": 1,
                "model": {"path": str(policy)},
                "data": {"train": "arithmetic:train", "verifier": "arithmetic"},
                "rollout": {"batch_size": 16, "group_size": 4, "max_new_tokens": 8},
                "optimizer": {"learning_rate": 1e-3, "minibatch_size": 8, "micro_batch_size": 8},
                "clipo": {"dim": 16},
                "evaluation": {"sets": {"heldout": "arithmetic:heldout"}, "limit": 8},
            },
            "arms": {
                "plain": {"what": "the outcome alone"},
                "clipo": {
                    "what": "with the head",
                    "reward": "head",
                    "against": ["plain"],
                    "expect": "No change in one step.",
                },
            },
        } | fields
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write
