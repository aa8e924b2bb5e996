"""The policy workers' hidden states, next to those of each rollout alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from openrlhf.models import Actor
from openrlhf.trainer.ppo_utils.experience import Experience
from peft import LoraConfig, get_peft_model
from tiny_policy import put_on_cpu
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from clipo_train.adapters.openrlhf import ClipoPolicyActor

from .conftest import alone, rollouts

RING = Path(__file__).with_name("ring.py")

TINY = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model(policy: Path) -> Qwen2ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(policy)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A policy worker in this process."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.cuda, "current_device", torch.cuda.current_device)

    def worker(model: nn.Module, **settings: Any) -> Any:
        made = ClipoPolicyActor(1, 0, "127.0.0.1", 1)
        put_on_cpu(made, model, **settings)
        return made

    return worker


def micro_batch() -> Experience:
    return Experience.concat_experiences(rollouts(), 15)


def scored(worker: Any, batch: Experience) -> tuple[Tensor, Tensor]:
    logprobs = worker.forward(
        sequences=batch.sequences, action_mask=batch.action_mask, attention_mask=batch.attention_mask
    )
    return logprobs, *worker.pop_pooled()


def left_padded(batch: Experience) -> Experience:
    """The same rollouts with their padding moved to the left."""
    lengths = batch.attention_mask.sum(1).tolist()
    width = batch.attention_mask.shape[1]

    def moved(rows: Tensor) -> Tensor:
        pairs = zip(rows, lengths, strict=True)
        return torch.stack([row.roll(width - length) for row, length in pairs])

    mask = torch.nn.functional.pad(batch.action_mask, (1, 0))  # a column for each token
    return Experience(moved(batch.sequences), moved(batch.attention_mask), moved(mask)[:, 1:])


def test_padding_on_either_side_and_tools_have_no_part_in_the_pooled_states(worker: Any, model: Any) -> None:
    wanted = alone(model, rollouts())
    for batch in (micro_batch(), left_padded(micro_batch())):
        torch.testing.assert_close(scored(worker(model), batch)[1], wanted, **TINY)


def test_packed_rollouts_pool_to_the_same(worker: Any, model: Any) -> None:
    plain, packed = scored(worker(model), micro_batch()), scored(worker(model, packing=True), micro_batch())
    torch.testing.assert_close(packed[1], alone(model, rollouts()), **TINY)
    torch.testing.assert_close(packed[0], plain[0], **TINY)


def test_log_probabilities_are_openrlhfs_to_the_bit(worker: Any, model: Any) -> None:
    subject, batch = worker(model), micro_batch()
    own = super(ClipoPolicyActor, subject).forward(batch.sequences, batch.action_mask, batch.attention_mask)
    assert scored(subject, batch)[0].equal(own)


def test_each_forward_is_handed_over_once(worker: Any, model: Any) -> None:
    subject = worker(model)
    for sample in rollouts()[:3]:
        subject.forward(sample.sequences, sample.action_mask, sample.attention_mask)
    assert [len(rows) for rows in subject.pop_pooled()] == [1, 1, 1]
    assert subject.pop_pooled() == []


def test_inside_lora_and_an_engine_the_states_are_the_backbones(worker: Any, model: Any) -> None:
    wanted = alone(model, rollouts())
    lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    torch.testing.assert_close(scored(worker(lora), micro_batch())[1], wanted, **TINY)
    # DeepSpeed's engine, too, has the model as `module`.
    torch.testing.assert_close(scored(worker(nn.DataParallel(lora)), micro_batch())[1], wanted, **TINY)


def test_a_bfloat16_model_of_openrlhfs_own_making_pools_in_float32(worker: Any, policy: Path) -> None:
    actor = Actor(str(policy), attn_implementation="sdpa")
    subject = worker(actor.model)
    pooled = scored(subject, micro_batch())[1]
    assert pooled.dtype == torch.float32
    assert not pooled.equal(pooled.bfloat16().float())
    torch.testing.assert_close(pooled, alone(actor.model, rollouts()).float(), atol=0.05, rtol=0.05)


def test_two_processes_of_a_ring_pool_their_parts_to_the_same() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(RING)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
