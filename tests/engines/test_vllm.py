"""vLLM samples from the policy itself, before and after updates."""

import pytest
import torch

from clipo_ops import token_logprobs
from clipo_train.errors import ConfigError
from clipo_train.policy import forward
from clipo_train.rollout import Generation, Sampling
from clipo_train.rollout.mismatch import logprob_gap, require_agreement
from clipo_train.rollout.transformers import TransformersEngine
from clipo_train.rollout.vllm import VllmEngine

TEXTS = ["1+2-3=", "4-1=", "9+9-4+2-1+3=", "7="]
LENGTH = 12


def sample(engine: VllmEngine, temperature: float = 1.3, *, seed: int = 0, samples: int = 4) -> Generation:
    torch.manual_seed(seed)
    prompts = [engine.tokenizer(text)["input_ids"] for text in TEXTS]
    return engine.generate(prompts, samples=samples, sampling=Sampling(LENGTH, temperature))


@torch.no_grad()
def gap(engine: VllmEngine, temperature: float = 1.3) -> dict[str, float]:
    """Between vLLM and the trainer's scoring forward."""
    generation = sample(engine, temperature)
    logits, _ = forward(engine.model, generation)
    return logprob_gap(generation, token_logprobs(logits, generation.response, temperature=temperature or 1.0))


def update(engine: VllmEngine) -> None:
    """A step of AdamW on the policy."""
    optimizer = torch.optim.AdamW(engine.model.parameters(), lr=0.05)
    ids = torch.randint(len(engine.tokenizer), (4, 12), generator=torch.Generator().manual_seed(0))
    engine.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("temperature", [1.0, 1.3, 0.0])
def test_log_probabilities_are_the_trainers(engine: VllmEngine, temperature: float) -> None:
    difference = gap(engine, temperature)
    assert 0 < difference["rollout/engine_logprob_gap_max"] < 1e-4
    assert difference["rollout/engine_logprob_gap"] <= difference["rollout/engine_logprob_gap_max"]


def test_an_update_reaches_vllm_by_sync_and_not_without(engine: VllmEngine) -> None:
    for _ in range(2):
        update(engine)
        stale = gap(engine)
        assert stale["rollout/engine_logprob_gap_max"] > 0.1
        with pytest.raises(
            ConfigError, match=r"^rollout\.logprob_tolerance: expected .* within 0\.001 .*, got .* apart"
        ):
            require_agreement(stale, 1e-3)
        engine.sync()
        require_agreement(gap(engine), 1e-4)


def test_greedy_is_that_of_transformers(engine: VllmEngine) -> None:
    ours = sample(engine, 0.0, samples=1)
    theirs = sample(TransformersEngine(engine.model, engine.tokenizer), 0.0, samples=1)  # type: ignore[arg-type]
    assert ours.texts == theirs.texts
    for name in ("tokens", "attention_mask", "response_mask", "finished"):
        assert getattr(ours, name).equal(getattr(theirs, name)), name


def test_rows_hold_prompt_and_response(engine: VllmEngine) -> None:
    generation = sample(engine)
    assert len(generation.tokens) == 4 * len(TEXTS)
    assert 0 < int(generation.finished.sum()) < len(generation.tokens)
    end = engine.tokenizer.eos_token_id
    for row in range(len(generation.tokens)):
        mask = generation.response_mask[row]
        ids = generation.response[row, mask]
        assert engine.tokenizer.decode(ids, skip_special_tokens=True) == generation.texts[row]
        assert (ids == end).tolist() == [False] * (len(ids) - 1) + [bool(generation.finished[row])]
        assert bool(generation.finished[row]) or len(ids) == LENGTH
        whole = engine.tokenizer.decode(generation.tokens[row, generation.attention_mask[row]])
        assert whole.startswith(TEXTS[row // 4])
        assert generation.logprobs is not None
        assert bool((generation.logprobs[row, ~mask] == 0).all())


def test_samples_depend_on_the_seed_alone(engine: VllmEngine) -> None:
    first, other, again = sample(engine, seed=1), sample(engine, seed=2), sample(engine, seed=1)
    assert first.tokens.equal(again.tokens)
    assert first.logprobs is not None
    assert again.logprobs is not None
    torch.testing.assert_close(first.logprobs, again.logprobs)
    assert first.texts != other.texts
    assert len(set(first.texts[:4])) > 1, "the samples of a prompt are all the same"
