"""Sampling, scoring and loss, on a real small model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from clipo_ops import GroupLayout, token_logprobs
from clipo_train.config import LossConfig, ModelConfig, TrainConfig
from clipo_train.errors import ConfigError
from clipo_train.objective import assign_credit, policy_loss
from clipo_train.policy import forward, load_policy
from clipo_train.rollout import Generation, Rollouts, Sampling
from clipo_train.rollout.transformers import TransformersEngine
from clipo_train.testbed.warm_start import build_tokenizer
from clipo_train.types import Example, Verdict

PROMPTS = ["3+4-2+1=", "1+1=", "2-4+1+3-2="]


@pytest.fixture
def policy(untrained: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(untrained).train(False)


@pytest.fixture
def engine(policy: Any) -> TransformersEngine:
    return TransformersEngine(policy, build_tokenizer())


def generate(engine: TransformersEngine, *, samples: int = 4, temperature: float = 1.0) -> Generation:
    prompts = [engine.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    return engine.generate(prompts, samples=samples, sampling=Sampling(12, temperature))


def test_a_generation_is_prompt_then_response(engine: TransformersEngine) -> None:
    torch.manual_seed(0)
    generation = generate(engine)
    assert len(generation.texts) == len(generation.tokens) == 12
    width = generation.response_mask.shape[1]
    for row, prompt in enumerate(prompt for prompt in PROMPTS for _ in range(4)):
        real = generation.tokens[row][generation.attention_mask[row]]
        assert engine.tokenizer.decode(real, skip_special_tokens=True) == prompt + generation.texts[row]
        response = generation.tokens[row, -width:][generation.response_mask[row]].tolist()
        ends = [token == engine.tokenizer.eos_token_id for token in response]
        assert sum(ends) == int(generation.finished[row])
        assert ends[-1] == bool(generation.finished[row])


def test_scores_do_not_depend_on_padding(engine: TransformersEngine, policy: Any) -> None:
    torch.manual_seed(0)
    generation = generate(engine)
    logits, hidden = forward(policy, generation)
    width = generation.response_mask.shape[1]
    for row in range(12):
        real = generation.tokens[row][generation.attention_mask[row]]
        length = int(generation.response_mask[row].sum())
        with torch.no_grad():
            alone = policy(input_ids=real[None], output_hidden_states=True)
        torch.testing.assert_close(logits[row, :length], alone.logits[0, -length - 1 : -1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(hidden[row, :length], alone.hidden_states[-1][0, -length:], atol=1e-5, rtol=1e-4)
    assert logits.shape[:2] == hidden.shape[:2] == (12, width)


def test_sampling_is_from_the_distribution_that_is_scored(engine: TransformersEngine, policy: Any) -> None:
    """At temperature 2, the mean log-probability of many samples is minus the entropy of the scored distribution."""
    torch.manual_seed(0)
    ids = engine.tokenizer(PROMPTS[0])["input_ids"]
    generation = engine.generate([ids], samples=4000, sampling=Sampling(1, 2.0))
    with torch.no_grad():
        logits, _ = forward(policy, generation)
    logprobs = token_logprobs(logits, generation.tokens[:, -1:], temperature=2.0)
    distribution = (logits[0, 0] / 2.0).softmax(-1)
    deviation = float(logprobs.std()) / 4000**0.5
    assert abs(float(logprobs.mean()) - float((distribution * distribution.log()).sum())) < 4 * deviation + 1e-6


def test_greedy_decoding_takes_the_most_likely_token(engine: TransformersEngine, policy: Any) -> None:
    generation = generate(engine, samples=1, temperature=0.0)
    logits, _ = forward(policy, generation)
    width = generation.response_mask.shape[1]
    chosen = generation.tokens[:, -width:]
    assert logits.argmax(-1)[generation.response_mask].equal(chosen[generation.response_mask])


def test_a_models_own_sampling_defaults_are_not_used(untrained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(untrained)
    model.generation_config.top_k = 1
    model.generation_config.do_sample = True
    engine = TransformersEngine(model, build_tokenizer())
    torch.manual_seed(0)
    assert len(set(generate(engine, samples=8).texts[:8])) > 1


def test_the_first_gradient_is_that_of_the_policy_gradient(engine: TransformersEngine, policy: Any) -> None:
    torch.manual_seed(0)
    generation = generate(engine)
    mask = generation.response_mask
    response = generation.tokens[:, -mask.shape[1] :]
    advantages = torch.randn(12)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        policy.zero_grad()
        torch.autograd.backward(loss)
        return policy.model.embed_tokens.weight.grad.clone()

    tokens = mask.sum().float()
    logprobs = token_logprobs(forward(policy, generation)[0], response)
    result = policy_loss(
        logprobs, logprobs.detach(), None, advantages, mask, LossConfig(), denominator=tokens, tokens=tokens
    )
    assert float(result.clip_fraction) == float(result.approx_kl) == 0
    ours = gradient(result.loss)
    logprobs = token_logprobs(forward(policy, generation)[0], response)
    theirs = gradient(-(advantages[:, None] * logprobs)[mask].sum() / tokens)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_credit_without_a_head_is_plain_grpo() -> None:
    generation = Generation(*[torch.zeros(4, 1, dtype=torch.bool)] * 3, ["a"] * 4, torch.ones(4, dtype=torch.bool))
    verdicts = [Verdict(True, 1.0), Verdict(False, 0.0), Verdict(True, 1.0), Verdict(True, 1.0)]
    rollouts = Rollouts([Example("q", "a", "s")] * 4, generation, verdicts, group_size=2)
    credit = assign_credit(rollouts, torch.zeros(4), TrainConfig(), logprobs=torch.zeros(4, 1), ref_logprobs=None)
    torch.testing.assert_close(credit.advantages, torch.tensor([0.5, -0.5, 0.0, 0.0]) * 2**0.5, atol=1e-5, rtol=0)
    assert isinstance(rollouts.groups, GroupLayout)


def test_bfloat16_weights_and_gradient_checkpointing(untrained: Path) -> None:
    model, tokenizer = load_policy(ModelConfig(path=str(untrained), dtype="bfloat16", gradient_checkpointing=True))
    assert model.dtype == torch.bfloat16
    assert model.is_activation_checkpointing
    generation = generate(TransformersEngine(model, tokenizer))
    model.train()
    logits, _ = forward(model, generation)
    torch.autograd.backward(logits.float().mean())
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


def test_a_package_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a model that transformers can load, got 'package:clipo_ops'"):
        load_policy(ModelConfig(path="package:clipo_ops"))
