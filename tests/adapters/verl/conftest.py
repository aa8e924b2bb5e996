"""verl on a CPU, which it has no platform for; a tiny model; the trainer's configuration, composed by hydra."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # until there is a platform; a test in a fresh process does without

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from verl.plugin.platform import platform_manager
    from verl.plugin.platform.platform_cuda import PlatformCUDA

    class PlatformCPU(PlatformCUDA):
        """What verl's engine asks of a device, answered for the host."""

        device_name = "cpu"
        vendor_name = "cpu"
        device_module = SimpleNamespace(
            empty_cache=lambda: None,
            get_device_name=lambda: "CPU",
            get_rng_state=torch.get_rng_state,
            is_available=lambda: False,
            max_memory_allocated=lambda: 0,
            max_memory_reserved=lambda: 0,
            mem_get_info=lambda: (0, 0),
            memory_allocated=lambda: 0,
            memory_reserved=lambda: 0,
            set_rng_state=torch.set_rng_state,
            synchronize=lambda: None,
        )

        def is_available(self) -> bool:
            return True

        def current_device(self) -> torch.device:
            return torch.device("cpu")

    platform_manager.set_platform(PlatformCPU())
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

    import clipo_train.adapters.verl.plugin  # noqa: F401

    EngineRegistry.register("language_model", ["fsdp2"], "cpu")(FSDPEngineWithLMHead)

os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "auto"

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(29))]

OVERRIDES = """
    trainer.v1.trainer_mode=clipo +trainer.v1.clipo.success=acc
    algorithm.adv_estimator=clipo_grpo
    actor_rollout_ref.actor.policy_loss.loss_mode=clipo_clipped
    actor_rollout_ref.actor.strategy=fsdp2
    +trainer.v1.clipo.dim=8 +trainer.v1.clipo.objective=supcon_out
    trainer.device=cpu trainer.n_gpus_per_node=1 trainer.nnodes=1 critic.enable=false
    data.train_batch_size=2 actor_rollout_ref.rollout.n=4 actor_rollout_ref.actor.ppo_mini_batch_size=2
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.calculate_log_probs=true
    actor_rollout_ref.actor.fsdp_config.use_torch_compile=false actor_rollout_ref.actor.optim.lr=1e-2
    +actor_rollout_ref.model.override_config.attn_implementation=sdpa
    +actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32
    +actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype=fp32
    +actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype=fp32
    transfer_queue.backend.SimpleStorage.num_data_storage_units=1
"""
"""The first four lines are CLIPO; the others make verl small, and let it be on a CPU."""


def pytest_configure(config: pytest.Config) -> None:
    # torchdata 0.11 calls what torch 2.13 deprecates.
    config.addinivalue_line("filterwarnings", "ignore:'set_vital' is deprecated:UserWarning")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights, and a tokenizer of 32 words."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))  # noqa: S106
    template = "{{ messages[0]['content'] }}"
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def configure(model: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """verl's configuration with these overrides on top of `OVERRIDES`."""

    def composed(*overrides: str) -> DictConfig:
        paths = [f"actor_rollout_ref.model.path={model}", f"trainer.default_local_dir={tmp_path / 'checkpoints'}"]
        with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
            return compose("ppo_trainer", [*OVERRIDES.split(), *paths, *overrides])

    return composed


@pytest.fixture(scope="session")
def _process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One process; made here, as verl would ask for `cpu:gloo,cpu:gloo`, which torch refuses."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="localhost", MASTER_PORT="0")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('gloo') / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def nested(rows: list[torch.Tensor]) -> Any:
    """Rows of different lengths, as verl packs them."""
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
