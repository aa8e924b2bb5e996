"""A small real policy, a task it half knows, and TRL trainers on them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM

from clipo_train.adapters.trl import ClipoGRPOConfig, ClipoGRPOTrainer, ClipoRLOOConfig, ClipoRLOOTrainer
from clipo_train.testbed.arithmetic import problems
from clipo_train.testbed.warm_start import build_tokenizer, warm_start

CONFIGS = {ClipoGRPOTrainer: ClipoGRPOConfig, ClipoRLOOTrainer: ClipoRLOOConfig}


def right(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 for the right answer after the hash."""
    return [float(text.partition("#")[2] == truth) for text, truth in zip(completions, answer, strict=True)]


def short(completions: Sequence[str], **_: Any) -> list[float]:
    """More for fewer characters."""
    return [-0.01 * len(text) for text in completions]


def pytest_configure(config: pytest.Config) -> None:
    # TRL 1.16 calls these by the names they had before transformers 5.24.
    for name in ("gradient_checkpointing", "is_gradient_checkpointing"):
        config.addinivalue_line("filterwarnings", f"ignore:`{name}` is deprecated:FutureWarning")


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
def tasks() -> Dataset:
    rows = problems("train")[:64]
    return Dataset.from_dict({"prompt": [row.prompt for row in rows], "answer": [row.answer for row in rows]})


@pytest.fixture
def build(tmp_path: Path, warm: Path, tasks: Dataset) -> Callable[..., Any]:
    """Makes a trainer of 4 prompts with 4 rollouts each; keywords change its configuration."""

    def build(
        cls: type = ClipoGRPOTrainer,
        *,
        rewards: Sequence[Any] = (right,),
        extra: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        base = next(known for known in CONFIGS if issubclass(cls, known))
        values: dict[str, Any] = {
            "output_dir": str(tmp_path / "run"),
            "clipo": {"dim": 16, "objective": "supcon_out"},
            "clipo_success": "right",
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "max_completion_length": 24,
            "learning_rate": 1e-3,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "activation_checkpointing": False,
            "bf16": False,
            "disable_tqdm": True,
        }
        return cls(
            model=Qwen2ForCausalLM.from_pretrained(warm),
            reward_funcs=list(rewards),
            args=CONFIGS[base](**{**values, **settings}),
            train_dataset=tasks,
            eval_dataset=tasks.select(range(4)),
            processing_class=build_tokenizer(),
            **(extra or {}),
        )

    return build
