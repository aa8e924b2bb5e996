"""A small policy, prompts, and TRL trainers on them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM

from clipo_train.adapters.trl import ClipoGRPOConfig, ClipoGRPOTrainer, ClipoRLOOConfig
from clipo_train.testbed.arithmetic import problems
from clipo_train.testbed.warm_start import build_tokenizer


def pytest_configure(config: pytest.Config) -> None:
    # TRL 1.16 calls these by the names they had before transformers 5.24.
    config.addinivalue_line("filterwarnings", "ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")


def even(completions: Sequence[str], **_: Any) -> list[float]:
    """Right if its characters are of an even number, which about half of the untrained policy's completions are."""
    return [float(len(text) % 2 == 0) for text in completions]


def sevens(completions: Sequence[str], **_: Any) -> list[float]:
    """The share of sevens, which is quickly learned."""
    return [text.count("7") / max(1, len(text)) for text in completions]


SETTINGS: dict[str, Any] = {
    "clipo": {"dim": 16, "objective": "supcon_out"},
    "clipo_success": "even",
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "max_completion_length": 16,
    "learning_rate": 1e-2,
    "max_steps": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "disable_tqdm": True,
}
"""A step's 16 rollouts are those of 4 prompts."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy(untrained: Path) -> Path:
    return untrained


@pytest.fixture(scope="session")
def prompts() -> Dataset:
    return Dataset.from_dict({"prompt": [task.prompt for task in problems("train")[:64]]})


@pytest.fixture
def build(tmp_path: Path, policy: Path, prompts: Dataset) -> Callable[..., Any]:
    """Makes a trainer; keywords change its configuration, `given` its other arguments."""

    def build(cls: type = ClipoGRPOTrainer, config: type | None = None, given: Any = None, **settings: Any) -> Any:
        if config is None:
            config = ClipoRLOOConfig if "RLOO" in cls.__mro__[1].__name__ + cls.__name__ else ClipoGRPOConfig
        arguments = {
            "model": Qwen2ForCausalLM.from_pretrained(policy),
            "reward_funcs": [even],
            "args": config(**{"output_dir": str(tmp_path / "run"), **SETTINGS, **settings}),
            "train_dataset": prompts,
            "eval_dataset": prompts.select(range(8)),
            "processing_class": build_tokenizer(),
        }
        return cls(**{**arguments, **(given or {})})

    return build
