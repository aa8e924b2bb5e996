"""Log-probabilities from hidden states: those of the logits, which are never held."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from clipo_ops import linear_token_logprobs
from clipo_train.chunked_head import ChunkedHead, chunk_head, logit_transform
from clipo_train.config import ModelConfig
from clipo_train.errors import ConfigError
from clipo_train.policy import TokenScores, load_policy, score_tokens
from clipo_train.rollout import Generation

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}


def build(kind: type[Any], config: type[Any], *, vocab_size: int = 50, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config(vocab_size=vocab_size, **SMALL, **settings)).eval()


def qwen(**settings: Any) -> Any:
    return build(Qwen2ForCausalLM, Qwen2Config, **{"tie_word_embeddings": True} | settings)


def phi(**settings: Any) -> Any:
    """Its head has a bias and a weight of its own."""
    model = build(PhiForCausalLM, PhiConfig, **settings)
    nn.init.normal_(model.lm_head.bias, generator=torch.Generator().manual_seed(0))
    return model


def generation(vocab_size: int = 50, rollouts: int = 5, width: int = 7) -> Generation:
    """Prompts of one to five tokens and responses of one to seven."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, vocab_size, (rollouts, 5 + width), generator=generator)
    place = torch.arange(5 + width)
    row = torch.arange(rollouts).unsqueeze(1) % 5
    attention_mask = (place >= row) & (place < 6 + row + width - 5)
    return Generation(
        *(tokens, attention_mask, attention_mask[:, -width:], [""] * rollouts, torch.ones(rollouts, dtype=torch.bool))
    )


def scores_and_gradients(model: Any, temperature: float = 0.7) -> tuple[TokenScores, dict[str, Tensor]]:
    """Also of a loss that wants both results and the hidden states."""
    batch = generation()
    scores = score_tokens(model, batch, temperature=temperature, entropy=True)
    weights = torch.randn(2, *batch.response_mask.shape, generator=torch.Generator().manual_seed(1))
    assert scores.entropy is not None
    model.zero_grad()
    parts = weights[0] * scores.logprobs + weights[1] * scores.entropy + scores.hidden.mean(-1)
    torch.autograd.backward(parts[batch.response_mask].sum())
    return scores, {name: value.grad.clone() for name, value in model.named_parameters()}


def gemma() -> Any:
    """A soft cap that the logits reach."""
    return build(Gemma2ForCausalLM, Gemma2Config, head_dim=16, final_logit_softcapping=2.0)


def granite() -> Any:
    return build(GraniteForCausalLM, GraniteConfig, logits_scaling=8.0, tie_word_embeddings=True)


def cohere() -> Any:
    return build(CohereForCausalLM, CohereConfig, logit_scale=0.0625)


@pytest.mark.parametrize("make", [qwen, phi, gemma, granite, cohere])
def test_scores_and_gradients_are_those_of_the_logits(make: Any) -> None:
    plain, chunked = make(), make()
    chunk_head(chunked)
    assert isinstance(chunked.get_output_embeddings(), ChunkedHead)
    expected, gradients = scores_and_gradients(plain)
    scores, own = scores_and_gradients(chunked)
    for ours, theirs in zip(scores, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert own.keys() == gradients.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [qwen, gemma, granite, cohere])
def test_otherwise_the_model_is_the_same(make: Any) -> None:
    plain, chunked = make(), make()
    chunk_head(chunked)
    ids = torch.arange(2, 12)[None]
    score_tokens(chunked, generation(), temperature=1.0)
    torch.testing.assert_close(chunked(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert chunked.state_dict().keys() == plain.state_dict().keys()
    assert chunked.get_output_embeddings().weight is chunked.get_input_embeddings().weight
    assert score_tokens(chunked, generation(), temperature=1.0).entropy is None


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


@pytest.mark.parametrize("chunked", [False, True])
def test_logits_are_not_held(chunked: bool) -> None:
    """The backward pass included; the weights are the largest tensors then."""
    vocabulary, rollouts, width = 5000, 32, 16
    model = qwen(vocab_size=vocabulary)
    if chunked:
        chunk_head(model)
    with Largest() as largest:
        scores = score_tokens(model, generation(vocabulary, rollouts, width), temperature=1.0)
        torch.autograd.backward(scores.logprobs.sum())
    logits = rollouts * width * vocabulary
    assert largest.numbers == vocabulary * SMALL["hidden_size"] if chunked else largest.numbers >= logits


def test_autocast_computes_in_bfloat16_and_gives_float32() -> None:
    model = phi()
    head = ChunkedHead(model.lm_head, logit_transform(model))
    hidden, ids = (
        torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[1, 2, 3], [4, 5, 6]]),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16), head.scoring(ids, 1.0):
        scores = head(hidden)
    low = hidden[:, :-1].bfloat16(), head.weight.bfloat16()
    expected = linear_token_logprobs(*low, ids, bias=head.bias.bfloat16())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.stack(expected, -1), atol=2e-3, rtol=0)  # rounding of bfloat16 logits
    with head.scoring(ids, 1.0):
        assert not head(hidden).equal(scores)


def test_logits_that_are_not_what_the_head_puts_out_are_refused() -> None:
    model = qwen()

    def shift(_module: Any, _inputs: Any, output: Any) -> Any:
        output.logits = output.logits + 1
        return output

    model.register_forward_hook(shift)
    with pytest.raises(ConfigError, match=r"^model\.chunked_head: expected .*, got Qwen2ForCausalLM$"):
        chunk_head(model)


def test_another_head_is_refused() -> None:
    model = qwen()
    model.set_output_embeddings(nn.Sequential(model.lm_head))
    with pytest.raises(ConfigError, match=r"^model\.chunked_head: expected .*, got Qwen2.* with Sequential$"):
        chunk_head(model)


def test_it_is_a_field_of_the_model(untrained: Path) -> None:
    model, _ = load_policy(ModelConfig(path=str(untrained), chunked_head=True))
    assert isinstance(model.get_output_embeddings(), ChunkedHead)
