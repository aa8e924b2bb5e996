"""Checkpoints that appear whole or not at all, and resume to the same numbers."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

_PREFIX = "step-"
_FACTS = "clipo.json"
_HEAD = "head.pt"


def save_checkpoint(
    run_dir: Path, step: int, accelerator: Accelerator, head: ClipoHead | None, *, prompts: int, keep: int
) -> Path:
    """Writes model, optimizer, scheduler, every random state and the head; then drops all but the latest `keep`.

    The folder is written under another name, flushed to disk and renamed, so that a run killed at any moment leaves
    only whole checkpoints behind. `prompts` is how many have been drawn: the place in the training set.

    Returns:
        The checkpoint's folder, `run_dir/checkpoints/step-XXXXXXXX`.
    """
    folder = run_dir / "checkpoints"
    unfinished, final = folder / f".unfinished-{step:08d}", folder / f"{_PREFIX}{step:08d}"
    if accelerator.is_main_process:
        for left_by_a_killed_run in folder.glob(".unfinished-*"):
            shutil.rmtree(left_by_a_killed_run)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if head is not None:
            torch.save(head.state_dict(), unfinished / _HEAD)
        model = accelerator.unwrap_model(accelerator._models[0])
        facts = {"step": step, "prompts": prompts, "model": _signature(model)}
        (unfinished / _FACTS).write_text(json.dumps(facts, indent=2))
        _flush(unfinished)
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        for old in _complete(run_dir)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(run_dir: Path, accelerator: Accelerator, head: ClipoHead | None) -> tuple[int, int]:
    """Restores the latest checkpoint into what `accelerator` has prepared, and into the head.

    Returns:
        The step it was written after, and how many prompts had been drawn.

    Raises:
        ConfigError: There is none, it cannot be read, or it is that of another model or of a run without a head.
    """
    checkpoints = _complete(run_dir)
    if not checkpoints:
        raise ConfigError(
            f"resume: wanted a checkpoint in {str(run_dir / 'checkpoints')!r}, got none; start without it"
        )
    latest = checkpoints[-1]
    facts = _read_facts(latest)
    model = accelerator.unwrap_model(accelerator._models[0])
    saved, own = facts["model"], _signature(model)
    if saved != own:
        raise ConfigError(f"resume: wanted a checkpoint of {own}, got {saved} in {str(latest)!r}")
    if (head is not None) != (latest / _HEAD).exists():
        raise ConfigError(
            f"resume: wanted a checkpoint {'with' if head else 'without'} a head (clipo.enabled), got {str(latest)!r}"
        )
    if head is not None:
        head.load_state_dict(torch.load(latest / _HEAD, map_location="cpu", weights_only=True))
    accelerator.load_state(str(latest))
    return int(facts["step"]), int(facts["prompts"])


def _complete(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "checkpoints").glob(f"{_PREFIX}*"))


def _read_facts(checkpoint: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((checkpoint / _FACTS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"resume: wanted a readable checkpoint, got {str(checkpoint)!r}: {error}") from error
    return facts


def _signature(model: PreTrainedModel) -> str:
    """What tells models of different shapes apart, in one line."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{type(model).__name__}(hidden_size={config.hidden_size}, layers={config.num_hidden_layers}, "
        f"vocab_size={config.vocab_size}, parameters={parameters})"
    )


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
