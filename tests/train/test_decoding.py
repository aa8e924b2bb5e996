"""Decoding by our own loop: `generate`'s tokens, with fewer rows of forward passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from clipo_train.rollout import Sampling
from clipo_train.rollout.decoding import decode

PROMPTS = torch.tensor([[0, 0, 3, 4, 5], [6, 7, 8, 9, 3], [0, 4, 4, 4, 4]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
SAMPLES, LENGTH = 6, 30


@pytest.fixture
def policy(untrained: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(untrained, dtype=torch.float64).train(False)
    with torch.no_grad():
        model.lm_head.weight.mul_(3)  # that the tokens of its distribution differ
    return model


def ours(policy: Any, sampling: Sampling, ends: list[int]) -> torch.Tensor:
    torch.manual_seed(0)
    options: Any = {"samples": SAMPLES, "sampling": sampling, "end_ids": ends, "pad_id": 0}
    return decode(policy, PROMPTS, MASK, **options)


def theirs(policy: Any, sampling: Sampling, ends: list[int]) -> torch.Tensor:
    torch.manual_seed(0)
    sampled = sampling.temperature > 0
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampled,
        temperature=sampling.temperature if sampled else None,
        top_k=0 if sampled else None,
        top_p=sampling.top_p if sampled else None,
        num_return_sequences=SAMPLES if sampled else 1,
        eos_token_id=ends,
        pad_token_id=0,
    )
    tokens: torch.Tensor = policy.generate(input_ids=PROMPTS, attention_mask=MASK, generation_config=config)
    response = tokens[:, PROMPTS.shape[1] :]
    return response if sampled else response.repeat_interleave(SAMPLES, 0)


@pytest.mark.parametrize("ends", [[5], [5, 6, 7], [10**6]], ids=["one end", "three ends", "no end"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_the_tokens_are_those_of_generate(policy: Any, temperature: float, top_p: float, ends: list[int]) -> None:
    sampling = Sampling(LENGTH, temperature, top_p)
    assert ours(policy, sampling, ends).equal(theirs(policy, sampling, ends))


def test_a_prompt_is_read_once_and_an_ended_response_costs_no_more(policy: Any) -> None:
    rows = []
    policy.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    response = ours(policy, Sampling(LENGTH, 1.0), [5, 6, 7])
    ended = torch.isin(response, torch.tensor([5, 6, 7]))
    alive = (ended.cumsum(1) == 0).sum(0).tolist()
    assert rows[0] == len(PROMPTS)
    assert len(rows) == response.shape[1]
    assert rows[-1] <= len(response) / 3
    for computed, needed in zip(rows[1:], alive, strict=False):
        assert needed <= computed
        assert needed >= 7 / 8 * computed - 1
