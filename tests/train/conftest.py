"""Small real models for the trainer's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from clipo_train.testbed.warm_start import warm_start


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warm-started policy, as a Hugging Face folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "warm"
    model, tokenizer = warm_start(0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def config_file(tmp_path: Path, untrained: Path) -> Callable[..., Path]:
    """Writes a configuration of a few tiny steps, with sections updated by keyword."""

    def write(**sections: Any) -> Path:
        values: dict[str, Any] = {
            "run_dir": str(tmp_path / "run"),
            "steps": 2,
            "model": {"path": str(untrained)},
            "data": {"train": "arithmetic:train", "verifier": "arithmetic"},
            "rollout": {"batch_size": 16, "group_size": 4, "max_new_tokens": 8},
            "optimizer": {"learning_rate": 1e-3, "minibatch_size": 8, "micro_batch_size": 8},
            "clipo": {"dim": 16},
            "evaluation": {"sets": {"heldout": "arithmetic:heldout"}, "limit": 8},
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write
