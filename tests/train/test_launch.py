"""The configurations for `accelerate launch` that come with the project, and what the trainer makes of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from clipo_train.config import OptimizerConfig
from clipo_train.errors import ConfigError
from clipo_train.parallel import micro_batches, settle_launch

CONFIGS = Path(__file__).parents[2] / "examples" / "configs" / "accelerate"
OPTIMIZER = OptimizerConfig(max_grad_norm=0.7, minibatch_size=32, micro_batch_size=8)


def launched(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts the environment of a process that Accelerate launches by this file in place; returns the arguments."""
    command = ["--config_file", str(CONFIGS / f"{name}.yaml"), "-m", "clipo_train.cli", "train", "CONFIG.yaml"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    arguments.deepspeed_fields_from_accelerate_config = ""
    prepare = prepare_deepspeed_cmd_env if arguments.use_deepspeed else prepare_multi_gpu_env
    environment = prepare(arguments)
    for key, value in (environment[1] if isinstance(environment, tuple) else environment).items():
        monkeypatch.setenv(key, value)
    return arguments


def accelerator(**plugins: Any) -> Any:
    return SimpleNamespace(state=SimpleNamespace(**{"deepspeed_plugin": None} | plugins))


def test_there_is_a_test_for_each() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == {"ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"}


def test_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = launched("ddp", monkeypatch)
    assert arguments.multi_gpu
    assert arguments.num_processes == 8


def test_fsdp2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched("fsdp2", monkeypatch).use_fsdp
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward
    plugin.set_mixed_precision("bf16")
    settle_launch(accelerator(fsdp_plugin=plugin), OPTIMIZER)
    assert plugin.mixed_precision_policy.param_dtype == torch.bfloat16
    assert plugin.mixed_precision_policy.output_dtype is None, "log-probabilities would be rounded"


def test_weights_on_one_process_only_are_refused() -> None:
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=True)
    with pytest.raises(ConfigError, match=r"^fsdp_cpu_ram_efficient_loading: expected false .*, got true$"):
        settle_launch(accelerator(fsdp_plugin=plugin), OPTIMIZER)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    assert launched(f"deepspeed_zero{stage}", monkeypatch).use_deepspeed
    plugin = DeepSpeedPlugin()
    settle_launch(accelerator(deepspeed_plugin=plugin), OPTIMIZER)
    settings = plugin.deepspeed_config
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] == (stage == 3)
    assert settings["gradient_clipping"] == 0.7
    assert settings["train_micro_batch_size_per_gpu"] == 8
    assert settings["gradient_accumulation_steps"] == 1


def test_only_the_last_micro_batch_ends_with_an_update() -> None:
    """DeepSpeed takes its step in `backward`, if gradients are to be exchanged then."""
    real = Accelerator(cpu=True)
    seen = [real.sync_gradients for _ in micro_batches(torch.arange(10), 4, torch.nn.Linear(1, 1), real)]
    assert seen == [False, False, True]
    assert real.sync_gradients
