"""Starting vLLM in the trainer's process leaves that as it was, and says what it cannot do."""

import random

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from clipo_train.errors import ConfigError
from clipo_train.rollout import Sampling
from clipo_train.rollout.vllm import VllmEngine

from .conftest import build_policy


def test_the_process_is_left_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    """vLLM seeds every generator and replaces `torch.set_num_threads`."""
    policy = build_policy()
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002
    torch_state = torch.get_rng_state()
    others = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    engine = VllmEngine(policy, tokenizer, dtype="float32", max_model_len=64, gpu_memory_utilization=0.4)
    assert torch.get_rng_state().equal(torch_state)
    for threads in (2, 1):
        torch.set_num_threads(threads)
        assert torch.get_num_threads() == threads

    engine.generate([[1, 2]], samples=4, sampling=Sampling(8, 1.0))
    sampled = torch.get_rng_state()
    assert not sampled.equal(torch_state), "samples come from torch's generator"
    engine.sync()
    assert torch.get_rng_state().equal(sampled)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == others  # noqa: NPY002
    engine.close()
    assert not torch.distributed.is_initialized()


def test_a_model_that_vllm_cannot_run_is_refused_in_one_line(tokenizer: PreTrainedTokenizerFast) -> None:
    policy = build_policy(num_attention_heads=4, num_key_value_heads=4)
    with pytest.raises(ConfigError, match=r"^rollout\.engine: expected a model that vLLM runs here, got Qwen2[^\n]*$"):
        VllmEngine(policy, tokenizer, dtype="float32", max_model_len=64, gpu_memory_utilization=0.4)
