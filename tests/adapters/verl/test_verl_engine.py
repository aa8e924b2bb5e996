"""The engine, on a CPU: what its scoring pass says of the hidden states is right, and only said when asked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor
from transformers import LlamaForCausalLM
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from clipo_train.adapters.verl.engine import ClipoEngine, response_segments

from .conftest import nested

PROMPTS = [torch.arange(3, 3 + n) for n in (3, 5, 2, 4)]
RESPONSES = [torch.arange(7, 7 + n) for n in (4, 2, 6, 1)]
MASKS = [torch.tensor(row) for row in ([1, 1, 1, 1], [1, 1], [1, 1, 0, 0, 1, 1], [0])]  # a tool's answer; a padded row


def batch(**facts: Any) -> TensorDict:
    rows = {
        "prompts": PROMPTS,
        "responses": RESPONSES,
        "response_mask": MASKS,
        "loss_mask": MASKS,
        "input_ids": [torch.cat(pair) for pair in zip(PROMPTS, RESPONSES, strict=True)],
        "position_ids": [torch.arange(len(p) + len(r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)],
    }
    data = TensorDict({name: nested(row) for name, row in rows.items()}, batch_size=4)
    return tensordict_utils.assign_non_tensor(
        data, calculate_entropy=True, compute_loss=False, temperature=1.0, global_token_num=None, **facts
    )


@pytest.fixture
def worker(configure: Callable[..., DictConfig], _process_group: None) -> Callable[..., TrainingWorker]:
    def started(*overrides: str) -> TrainingWorker:
        config = configure(*overrides).actor_rollout_ref
        actor = omega_conf_to_dataclass(config.actor)
        engine = actor.engine
        engine.infer_micro_batch_size_per_gpu, engine.micro_batch_size_per_gpu = 2, 4
        engine.infer_max_token_len_per_gpu, engine.use_dynamic_bsz = 13, actor.use_dynamic_bsz
        worker = TrainingWorker(
            TrainingWorkerConfig(
                model_type="clipo_language_model",
                model_config=omega_conf_to_dataclass(config.model),
                engine_config=engine,
                optimizer_config=actor.optim,
                checkpoint_config=actor.checkpoint,
            )
        )
        worker.reset()
        return worker

    return started


def expected(policy: LlamaForCausalLM) -> Tensor:
    """Each rollout by itself: the mean of the last hidden states at the response's tokens that count."""
    rows = []
    for prompt, response, mask in zip(PROMPTS, RESPONSES, MASKS, strict=True):
        with torch.no_grad():
            hidden = policy.model(torch.cat([prompt, response]).unsqueeze(0))[0][0, len(prompt) :]
        rows.append(hidden[mask.bool()].sum(0) / mask.sum().clamp(min=1))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "overrides",
    [
        ("actor_rollout_ref.model.use_remove_padding=true",),
        ("actor_rollout_ref.model.use_remove_padding=false",),
        ("actor_rollout_ref.actor.use_dynamic_bsz=true", "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true"),
        ("actor_rollout_ref.model.use_remove_padding=true", "actor_rollout_ref.actor.fsdp_config.pad_to_length=true"),
        ("actor_rollout_ref.model.enable_gradient_checkpointing=false",),
        ("actor_rollout_ref.model.lora_rank=4",),
    ],
    ids=["packed", "padded", "dynamic", "packed to a length", "no checkpointing", "lora"],
)
def test_pooled_hidden_states_are_those_of_each_rollout_by_itself(
    overrides: tuple[str, ...], worker: Callable[..., TrainingWorker], model: Any
) -> None:
    subject = worker(*overrides)
    assert isinstance(subject.engine, ClipoEngine)
    output = subject.infer_batch(batch(clipo_pool=True))
    pooled = torch.stack(list(output["pooled_hidden"].unbind()))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, expected(LlamaForCausalLM.from_pretrained(model)), rtol=1e-5, atol=1e-6)
    without = subject.infer_batch(batch())
    assert "pooled_hidden" not in without
    assert all(a.equal(b) for a, b in zip(output["log_probs"].unbind(), without["log_probs"].unbind(), strict=True))
    assert subject.engine._hidden is None


def test_bfloat16_is_summed_in_float32(worker: Callable[..., TrainingWorker], model: Any) -> None:
    precision = "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16"
    output = worker(precision).infer_batch(batch(clipo_pool=True))
    pooled = torch.stack(list(output["pooled_hidden"].unbind()))
    assert pooled.dtype == torch.float32
    assert not pooled.equal(pooled.bfloat16().float())
    torch.testing.assert_close(pooled, expected(LlamaForCausalLM.from_pretrained(model)), rtol=0.1, atol=0.1)


def test_segments_are_the_rollouts_of_the_response_tokens_that_count() -> None:
    segments = response_segments(batch()["input_ids"], batch()["response_mask"])
    wanted = [[-1] * 3 + [0] * 4, [-1] * 5 + [1] * 2, [-1] * 2 + [2, 2, -1, -1, 2, 2], [-1] * 5]
    assert segments.tolist() == [segment for row in wanted for segment in row]
