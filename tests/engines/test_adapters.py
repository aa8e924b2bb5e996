"""vLLM knows nothing of adapters: it gets weights with these merged."""

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from clipo_train.config import LoraConfig
from clipo_train.lora import add_lora
from clipo_train.policy import score_tokens
from clipo_train.rollout import Sampling
from clipo_train.rollout.mismatch import logprob_gap
from clipo_train.rollout.vllm import VllmEngine

from .conftest import build_policy


@pytest.fixture
def engine(tokenizer: PreTrainedTokenizerFast) -> Iterator[VllmEngine]:
    policy = build_policy(tie_word_embeddings=True)
    add_lora(policy, LoraConfig(rank=4), seed=0)
    engine = VllmEngine(policy, tokenizer, dtype="float32", max_model_len=64, gpu_memory_utilization=0.4)
    yield engine
    engine.close()


@torch.no_grad()
def gap(engine: VllmEngine) -> float:
    torch.manual_seed(0)
    generation = engine.generate([[1, 2, 3], [4, 5]], samples=8, sampling=Sampling(12, 1.0))
    scores = score_tokens(engine.model, generation, temperature=1.0)
    return logprob_gap(generation, scores.logprobs)["rollout/engine_logprob_gap_max"]


def test_an_update_of_adapters_reaches_vllm(engine: VllmEngine) -> None:
    assert 0 < gap(engine) < 1e-4
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    for name, parameter in engine.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    assert gap(engine) > 0.1
    engine.sync()
    assert gap(engine) < 1e-4
    unchanged = [name for name, value in engine.model.state_dict().items() if value.equal(before[name])]
    assert unchanged == [name for name in before if "lora_B" not in name], "the policy's own weights stay"
