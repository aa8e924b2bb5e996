"""Checkpoints that appear whole or not at all, and resume to the same numbers.

`run_dir/checkpoints/step-XXXXXXXX` holds

| file | what |
|---|---|
| `policy/` | the policy as a Hugging Face folder: weights in safetensors, configuration, tokenizer |
| `optimizer.pt` | state of the policy's optimizer and of its schedule |
| `head.pt` | the contrastive head with its optimizer, random generator and count of steps |
| `random.pt` | random states of every process: Python's, NumPy's, torch's and its device's |
| `config.yaml` | the configuration of the run |
| `clipo.json` | where the run is, how many processes it has, and what model |
| `manifest.json` | size and SHA-256 of each of these files: a checkpoint that differs from it is refused |

It is the same on one process and on several, sharded or not. Whatever its files hold, reading them executes nothing:
those in `.pt` are read by `torch.load(..., weights_only=True)`.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import PreTrainedModel

from clipo_train.config import ModelConfig, TrainConfig
from clipo_train.config.fields import Natural
from clipo_train.config.files import dump_config, flatten, load_config
from clipo_train.errors import ConfigError, reason
from clipo_train.fingerprints import Fingerprints, check_fingerprints
from clipo_train.folders import BEGUN, CHECKPOINT, check_can_create, checkpoints, drop, remove, sweep, whole_folder
from clipo_train.head import ClipoHead
from clipo_train.learner import Learner
from clipo_train.lora import add_lora, save_policy
from clipo_train.manifest import DamagedError, check_manifest, write_manifest
from clipo_train.parallel import gather_list
from clipo_train.policy import load_policy, require_finite_weights
from clipo_train.random_state import random_state, restore_random_states

_WEIGHTS = Path("policy", "model.safetensors")
_FACTS = "clipo.json"
_FREE = (
    *("run_dir", "resume", "steps", "evaluation", "logging", "checkpoint"),
    *("model.gradient_checkpointing", "data.verifier_workers", "optimizer.micro_batch_size"),
    *("rollout.gpu_memory_utilization", "rollout.logprob_tolerance"),
)
"""Fields and sections that a resumed run may change: they do not change what it trains to, but for `steps`."""

_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Where a run is.

    Attributes:
        step: Steps done.
        prompts: Prompts drawn from the training set.
        skipped: Updates skipped in a row.
        metrics: Metrics of the last step, which are logged after the checkpoint is written.
    """

    step: Natural
    prompts: Natural
    skipped: Natural
    metrics: dict[str, float]


_POSITION = TypeAdapter(Position)


def save_checkpoint(learner: Learner, head: ClipoHead | None, position: Position, fingerprints: Fingerprints) -> None:
    """Writes everything that a resumed run needs; then drops all but the latest `checkpoint.keep`.

    The folder is written under another name, flushed to disk and renamed, so that a run killed at any moment leaves
    only whole checkpoints behind.
    """
    config, accelerator = learner.config, learner.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _log.warning(
            "checkpoint: expected DDP or FSDP2, got DeepSpeed, whose own checkpoints are pickles: none is written"
        )
        return
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights = get_model_state_dict(learner.model, options=options)
    optimizer = None
    if learner.optimizer.state:  # none before its first step; asked for it, it would take one
        optimizer = get_optimizer_state_dict(learner.model, learner.optimizer, options=options)
    states = gather_list([random_state()], accelerator)
    if accelerator.is_main_process:
        with whole_folder(config.run_dir / "checkpoints" / f"step-{position.step:08d}") as folder:
            _write_policy(folder / "policy", learner, weights)
            torch.save({"optimizer": optimizer, "schedule": learner.scheduler.state_dict()}, folder / "optimizer.pt")
            if head is not None:
                torch.save(head.state_dict(), folder / "head.pt")
            torch.save(states, folder / "random.pt")
            (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            facts = position._asdict() | {"processes": len(states), "model": _signature(learner.policy)}
            facts["fingerprints"] = dict(fingerprints)
            (folder / _FACTS).write_text(json.dumps(facts, indent=2))
            write_manifest(folder)
        _tidy(config)
    accelerator.wait_for_everyone()


def check_unchanged(config: TrainConfig) -> None:
    """That a run would go on as it began.

    Raises:
        ConfigError: The latest checkpoint is further than the run would go, or a field is not what it was then that
            changes what the run trains to.
    """
    latest = latest_checkpoint(config.run_dir)
    if latest is None:
        return
    with _readable(latest):
        check_manifest(latest, hashed=("config.yaml", _FACTS))
        began = load_config(latest / "config.yaml")
        saved, own = (flatten(yaml.safe_load(dump_config(it))) for it in (began, config))
        step = int(json.loads((latest / _FACTS).read_text())["step"])
    changed = [
        f"{name} {own.get(name)!r} (was {saved.get(name)!r})"
        for name in sorted(saved.keys() | own.keys())
        if saved.get(name) != own.get(name) and not any(f"{name}.".startswith(f"{free}.") for free in _FREE)
    ]
    if changed:
        raise ConfigError(
            f"resume: expected the configuration that the run began with, got {', '.join(changed)}; to "
            "change it, begin a new run, with the policy of this one if you like: clipo export"
        )
    if step > config.steps:
        raise ConfigError(f"steps: expected at least the checkpoint's {step}, got {config.steps}")


def load_checkpoint(learner: Learner, head: ClipoHead | None, fingerprints: Fingerprints) -> Position | None:
    """Restores the latest checkpoint into learner, head and random generators.

    Returns:
        Where the run was, or None if it has no checkpoint yet.

    Raises:
        ConfigError: It cannot be read, or is that of another model or of other data.
    """
    latest = latest_checkpoint(learner.config.run_dir)
    if latest is None:
        if learner.accelerator.is_main_process:
            _log.warning("resume: no checkpoint in %r yet: the run begins", str(learner.config.run_dir))
        return None
    _check_whole(latest, learner.accelerator)
    with _readable(latest):
        facts = json.loads((latest / _FACTS).read_text())
        position = _POSITION.validate_python({name: facts[name] for name in Position._fields})
        _check_model(latest, facts["model"], learner)
        check_fingerprints(facts["fingerprints"], fingerprints)
        _restore(latest, learner)
        if head is not None:
            head.load_state_dict(_read(latest / "head.pt"))
        seed = learner.config.seed + position.step
        restore_random_states(_read(latest / "random.pt"), learner.accelerator, seed=seed)
    if learner.accelerator.is_main_process:
        _tidy(learner.config)
    return position


def export_checkpoint(run_dir: Path, folder: Path, step: int | None = None) -> None:
    """Writes a checkpoint's policy as a plain Hugging Face folder.

    Args:
        run_dir: Of the run.
        folder: To write to; must not exist.
        step: Whose checkpoint; the latest when not given.

    Raises:
        ConfigError: There is no such checkpoint, it cannot be read, or the folder exists.
    """
    found = {int(path.name.removeprefix("step-")): path for path in checkpoints(run_dir)}
    if not found:
        raise ConfigError(f"run: expected the folder of a run with a checkpoint, got {str(run_dir)!r}")
    if step is not None and step not in found:
        raise ConfigError(f"step: expected one of {', '.join(map(str, found))}, got {step}")
    check_can_create(folder, "out")
    if folder.exists():
        raise ConfigError(f"out: expected a new folder, got {str(folder)!r}, which exists")
    checkpoint = found[max(found) if step is None else step]
    with _readable(checkpoint, "run"):
        check_manifest(checkpoint)
    config = load_config(checkpoint / "config.yaml")
    if config.model.lora is None:
        policy, tokenizer = load_policy(ModelConfig(path=str(checkpoint / "policy"), dtype=config.model.dtype))
    else:  # the checkpoint holds the adapters alone
        policy, tokenizer = load_policy(config.model, seed=config.seed)
        add_lora(policy, config.model.lora, seed=config.seed)
        policy.load_state_dict(load_file(checkpoint / _WEIGHTS), strict=False)
    with whole_folder(folder) as unfinished:
        save_policy(policy, policy.state_dict(), unfinished)
        tokenizer.save_pretrained(unfinished)


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The folder of a run's latest checkpoint, if it has one."""
    return max(checkpoints(run_dir), default=None)


def _tidy(config: TrainConfig) -> None:
    """Drops older checkpoints, and what a killed run has left."""
    sweep(config.run_dir / "checkpoints", CHECKPOINT)
    remove(config.run_dir / BEGUN)
    for old in checkpoints(config.run_dir)[: -config.checkpoint.keep]:
        if (old / _FACTS).is_file() and not old.is_symlink():  # one of ours
            drop(old)


def _check_whole(checkpoint: Path, accelerator: Accelerator) -> None:
    """Reads every file once, in the main process; what is wrong with one is raised in all."""
    refusal = ""
    if accelerator.is_main_process:
        try:
            with _readable(checkpoint):
                check_manifest(checkpoint)
        except ConfigError as error:
            refusal = str(error)
    refusal = gather_list([refusal], accelerator)[0]
    if refusal:
        raise ConfigError(refusal)


@contextmanager
def _readable(checkpoint: Path, field: str = "resume") -> Iterator[None]:
    """Whatever a damaged file makes of the block, in one line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{field}: expected a readable checkpoint, got {str(checkpoint)!r}; remove it to go on from the one before "
            f"({reason(error, typed=not isinstance(error, DamagedError))})"
        ) from error


def _read(path: Path) -> Any:
    """What `torch.save` has written. `mmap` refuses its older formats, and reads no more than is used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _check_model(checkpoint: Path, saved: str, learner: Learner) -> None:
    own = _signature(learner.policy)
    if saved != own:
        raise ConfigError(f"resume: expected a checkpoint of {own}, got {saved} in {str(checkpoint)!r}")


def _signature(model: PreTrainedModel) -> str:
    """What tells models of different shapes apart, in one line."""
    config = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{type(model).__name__}(hidden_size={config.hidden_size}, layers={config.num_hidden_layers}, "
        f"vocab_size={config.vocab_size}, parameters={parameters})"
    )


# The policy and its optimizer.


def _names(policy: nn.Module) -> dict[str, str]:
    """Names of the weights, but for frozen ones, each with the one name under which tied ones are written."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(value), name)
        for name, value in policy.state_dict(keep_vars=True).items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


def _write_policy(folder: Path, learner: Learner, weights: Mapping[str, Any]) -> None:
    folder.mkdir()
    for part in (learner.policy.config, learner.policy.generation_config, learner.tokenizer):
        part.save_pretrained(folder)
    written = {name: weights[name].contiguous() for name in _names(learner.policy).values()}
    save_file(written, folder.parent / _WEIGHTS, metadata={"format": "pt"})


def _restore(checkpoint: Path, learner: Learner) -> None:
    """Only the main process reads the weights; the others get them, or their part of them, from it."""
    several = learner.accelerator.num_processes > 1
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=several, strict=False)
    state = _read(checkpoint / "optimizer.pt")
    weights: dict[str, Any] = {}
    if learner.accelerator.is_main_process:
        written = load_file(checkpoint / _WEIGHTS)
        require_finite_weights(written, "resume", checkpoint)
        weights = {name: written[as_] for name, as_ in _names(learner.policy).items()}
    set_model_state_dict(learner.model, weights, options=options)
    if state["optimizer"] is not None:
        optimizer = state["optimizer"] if learner.accelerator.is_main_process else {}
        set_optimizer_state_dict(learner.model, learner.optimizer, optimizer, options=options)
    learner.scheduler.load_state_dict(state["schedule"])
