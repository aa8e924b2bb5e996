"""Policies that vLLM runs on a CPU: the test bed's, but with two heads, since it wants heads of at least 32 numbers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"

from clipo_train.rollout.vllm import VllmEngine
from clipo_train.testbed.warm_start import build_tokenizer


def build_policy(**settings: Any) -> Qwen2ForCausalLM:
    """With random weights, larger than usual, so that log-probabilities are far from uniform."""
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **{"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.2} | settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def started(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Iterator[VllmEngine]:
    """One at a time: vLLM keeps its process group in globals."""
    policy = build_policy(tie_word_embeddings=request.param)
    engine = VllmEngine(policy, tokenizer, dtype="float32", max_model_len=64, gpu_memory_utilization=0.4)
    yield engine
    engine.close()


@pytest.fixture
def engine(started: VllmEngine) -> Iterator[VllmEngine]:
    """vLLM over a policy of its own, with or without tied embeddings; a test may change the policy's weights."""
    weights = {name: value.clone() for name, value in started.model.state_dict().items()}
    yield started
    started.model.load_state_dict(weights)
    started.sync()


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("models") / "policy"
    build_policy(tie_word_embeddings=True, initializer_range=0.02).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
