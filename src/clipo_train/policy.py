"""The policy: loading it, encoding prompts for it, and the one forward that scores rollouts."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from clipo_ops import token_entropy, token_logprobs
from clipo_train.chunked_head import ChunkedHead, chunk_head, unpack
from clipo_train.config import ModelConfig
from clipo_train.dropout import remove_dropout
from clipo_train.errors import ConfigError, one_line
from clipo_train.prompts import EncodedExample, encode_prompts
from clipo_train.rollout import Generation, known_arguments, positions
from clipo_train.special_tokens import embedding_count, special_tokens
from clipo_train.testbed import warm_start

__all__ = [
    "EncodedExample",
    "TokenScores",
    "check_forward",
    "encode_prompts",
    "forward",
    "hidden_size",
    "load_policy",
    "require_finite_weights",
    "score_tokens",
    "tolerance",
    "trial_prompts",
]


def load_policy(
    config: ModelConfig, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads model and tokenizer. Code that comes with a model runs only if `trust_remote_code`.

    Args:
        config: Which model.
        seed: Of the test bed's warm start, if that is the model.
        progress: Called with (steps done, steps in all) during that warm start.

    Raises:
        ConfigError: There is no such model, it lacks weights, it has no end-of-sequence token, or its head cannot be
            chunked.
    """
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if warm_start.is_test_bed(config.path):
        same_slip = config.path == warm_start.SAME_SLIP
        model, tokenizer = warm_start.warm_start(seed, same_slip=same_slip, progress=progress)
    else:
        model, tokenizer = _load_pretrained(_resolve(config.path), config)
    if tokenizer.pad_token_id is None:  # for those who load what the run saves
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(special_tokens(model, tokenizer).ends[0])
    require_finite_weights(dict(model.named_parameters()), "model.path", config.path)
    if not config.dropout:
        remove_dropout(model)
    if config.gradient_checkpointing:
        older: Any = model  # transformers before 5.24 has the older name only
        enable = getattr(model, "activation_checkpointing_enable", None) or older.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if config.chunked_head:
        chunk_head(model)
    return model, tokenizer


def require_finite_weights(weights: Mapping[str, Tensor], field: str, path: str | Path) -> None:
    """Refuses weights that are NaN or infinite.

    Raises:
        ConfigError: Some are; names the field and where they were read.
    """
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ConfigError(f"{field}: expected finite weights, got NaN or inf in {broken[0]} of {str(path)!r}")


def forward(
    model: nn.Module, generation: Generation
) -> tuple[Float[Tensor, "rollouts tokens vocab"], Float[Tensor, "rollouts tokens hidden"]]:
    """One forward over prompt and response.

    Returns:
        The logits that predict the response's tokens, or what a `ChunkedHead` gives in their place, and the hidden
        states at those tokens from which the model's head makes its logits: the last layer's, after the final norm.
    """
    attention_mask = generation.attention_mask.long()
    width = generation.response_mask.shape[1]
    arguments = known_arguments(model, position_ids=positions(attention_mask), logits_to_keep=width + 1)
    with _head_inputs(model) as captured:
        output = model(input_ids=generation.tokens, attention_mask=attention_mask, use_cache=False, **arguments)
    logits = output.logits if output.logits.shape[1] == width else output.logits[:, -width - 1 : -1]
    return logits, captured[-1][:, -width:]


@torch.no_grad()
def check_forward(model: PreTrainedModel) -> None:
    """Refuses a model that `forward` does not fit, or to which padding on the left is not as good as absent.

    Raises:
        ConfigError: It is such a model.
    """
    name = type(model).__name__
    if not isinstance(model.get_output_embeddings(), nn.Module):
        raise ConfigError(f"model.path: expected a model with a language model head, got {name}")
    prompts = trial_prompts(model)
    response = [token % embedding_count(model) for token in (4, 2, 3, 9, 8, 1, 7, 5)]
    model.eval()
    try:
        alone = torch.cat([_plain_logprobs(model, [*prompt, *response], len(response)) for prompt in prompts])
        padded = score_tokens(model, _generation(prompts, response, model), temperature=1.0)
        other = score_tokens(model, _generation(prompts, [*response[:-1], response[0]], model), temperature=1.0)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise ConfigError(f"model.path: expected a model that scores padded rows, got {name}: {reason}") from error
    expected = (len(prompts), len(response), hidden_size(model))
    if padded.hidden.shape != expected:
        raise ConfigError(f"model.path: expected hidden states {expected}, got {tuple(padded.hidden.shape)} of {name}")
    for what, gap in (
        ("padding on the left", padded.logprobs - alone),
        ("a later token", (padded.logprobs - other.logprobs)[:, :-1]),
    ):
        nats = float(gap.abs().mean())
        if not nats <= tolerance(model):
            raise ConfigError(
                f"model.path: expected a causal model that can be padded, got {name}, whose log-probabilities change "
                f"by {nats:.2g} with {what}"
            )


def trial_prompts(model: PreTrainedModel) -> list[list[int]]:
    """Two prompts of different lengths, on which a model is tried before a run."""
    known = embedding_count(model)
    return [[token % known for token in prompt] for prompt in ([3, 5, 7, 9], [8, 6])]


def _plain_logprobs(model: PreTrainedModel, tokens: list[int], count: int) -> Tensor:
    """Log-probabilities of the last tokens by the model's own forward, without padding or positions of ours."""
    ids = torch.tensor([tokens], device=model.device)
    call: Any = model
    logits = call(input_ids=ids, use_cache=False).logits
    return token_logprobs(logits[:, -count - 1 : -1].float(), ids[:, -count:])


def tolerance(model: PreTrainedModel) -> float:
    """By how many nats, in the mean, log-probabilities of a model may differ for rounding alone."""
    return 1e-3 if model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type) else 0.1


def _generation(prompts: Sequence[list[int]], response: list[int], model: PreTrainedModel) -> Generation:
    """The same response to each prompt, padded on the left."""
    width = max(map(len, prompts))
    tokens = [[0] * (width - len(prompt)) + prompt + response for prompt in prompts]
    real = [[False] * (width - len(prompt)) + [True] * (len(prompt) + len(response)) for prompt in prompts]
    ones = [[True] * len(response)] * len(prompts)
    return Generation(
        torch.tensor(tokens, device=model.device),
        torch.tensor(real, device=model.device),
        torch.tensor(ones, device=model.device),
        [""] * len(prompts),
        torch.ones(len(prompts), dtype=torch.bool, device=model.device),
    )


def hidden_size(model: nn.Module) -> int:
    """Size of the hidden states that `forward` gives."""
    return int(_unwrapped(model).get_output_embeddings().weight.shape[-1])


class TokenScores(NamedTuple):
    """What a forward says of the response's tokens.

    Attributes:
        logprobs: Of the tokens, at the sampling temperature.
        entropy: Of the distribution each of them is from; None unless asked for.
        hidden: The last layer's hidden states at the tokens.
    """

    logprobs: Float[Tensor, "rollouts tokens"]
    entropy: Float[Tensor, "rollouts tokens"] | None
    hidden: Float[Tensor, "rollouts tokens hidden"]


def score_tokens(model: nn.Module, generation: Generation, *, temperature: float, entropy: bool = False) -> TokenScores:
    """One `forward`, and what follows from its logits; with a `ChunkedHead` there are none."""
    head = _unwrapped(model).get_output_embeddings()
    if isinstance(head, ChunkedHead):
        with head.scoring(generation.response, temperature):
            scores, hidden = forward(model, generation)
        logprobs, spread = unpack(scores)
        return TokenScores(logprobs, spread if entropy else None, hidden)
    logits, hidden = forward(model, generation)
    logits = logits.float()  # a ratio of log-probabilities in half precision would be coarse
    return TokenScores(
        token_logprobs(logits, generation.response, temperature=temperature),
        token_entropy(logits, temperature=temperature) if entropy else None,
        hidden,
    )


def _unwrapped(model: nn.Module) -> Any:
    """The model inside a wrapper of Accelerate's, if there is one."""
    return getattr(model, "module", model)


@contextmanager
def _head_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the language model's head is given in the block."""
    head: nn.Module = _unwrapped(model).get_output_embeddings()
    captured: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: captured.append(inputs[0]))
    try:
        yield captured
    finally:
        handle.remove()


def _resolve(path: str) -> str:
    """The folder of `package:NAME`; any other path as it is."""
    kind, _, name = path.partition(":")
    if kind != "package":
        return path
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a package inside one that there is not, or no name
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"model.path: expected an installed Python package, got {name!r}; install it first")
    return str(Path(spec.submodule_search_locations[0]))


def _load_pretrained(path: str, config: ModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.gguf_file is not None:
        options["gguf_file"] = config.gguf_file
    with one_line(f"model.path: expected a model that transformers can load, got {config.path!r}"):
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        load: Any = AutoModelForCausalLM.from_pretrained
        model, found = load(
            path,
            dtype=getattr(torch, config.dtype),
            use_safetensors=config.gguf_file is None or None,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    _require_all_weights(found, config.path)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ConfigError(
            f"model.path: expected a tokenizer with words, got none in {config.path!r}: a file is missing"
        )
    if config.gguf_file is not None:
        _forget_quantization(model)
    return model, tokenizer


def _require_all_weights(found: Mapping[str, Any], path: str) -> None:
    """Refuses a model of which transformers has drawn weights at random, because its files lack them.

    Raises:
        ConfigError: It is one.
    """
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        raise ConfigError(
            f"model.path: expected weights that fit the configuration, got {name} of shape {tuple(saved)}, not "
            f"{tuple(wanted)}, in {path!r}"
        )
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"model.path: expected weights for all parameters, got none for {len(missing)} such as {missing[0]} in "
            f"{path!r}"
        )


def _forget_quantization(model: Any) -> None:
    """A GGUF file's weights were dequantized on loading; without this the model refuses to be saved."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
