"""Which tokens end a response, and which one pads, for a model and its tokenizer together."""

from typing import Any, NamedTuple

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.errors import ConfigError

_MARK = "clipo"  # an assistant's message whose end is looked for in a rendered chat


class SpecialTokens(NamedTuple):
    """Tokens with a meaning to rollouts.

    Attributes:
        ends: Ids of the tokens that end a response.
        pad: Id of the token that fills up rows; the model knows it, and what it is changes nothing.
    """

    ends: list[int]
    pad: int


def special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """End tokens and padding of a policy.

    A response ends with the tokenizer's end-of-sequence token, with those that the model's configurations name, or with
    the token that the chat template puts after an assistant's message: fine-tuning often changes only one of them.

    Raises:
        ConfigError: There is no end token.
    """
    config: Any = model.config
    named = [
        tokenizer.eos_token_id,
        getattr(model.generation_config, "eos_token_id", None),
        getattr(config, "eos_token_id", None),
        getattr(config.get_text_config(), "eos_token_id", None),
        _end_of_turn(tokenizer),
    ]
    known = embedding_count(model)
    ends = [token for entry in named for token in (entry if isinstance(entry, list | tuple) else [entry])]
    ends = list(dict.fromkeys(token for token in ends if isinstance(token, int) and 0 <= token < known))
    if not ends:
        raise ConfigError("model.path: expected an end-of-sequence token of the tokenizer or model, got none")
    pad = tokenizer.pad_token_id
    return SpecialTokens(ends, pad if pad is not None and 0 <= pad < known else ends[0])


def settle_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """The special tokens, which become the model's generation configuration, and nothing else of it.

    A model's own sampling defaults (top-k, repetition penalty, ...) are dropped: what they sample from is not the
    distribution that log-probabilities are taken under.
    """
    tokens = special_tokens(model, tokenizer)
    model.generation_config = GenerationConfig(eos_token_id=tokens.ends, pad_token_id=tokens.pad)
    return tokens


def describe_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """The end tokens in one line, for the start of a run."""
    ends = special_tokens(model, tokenizer).ends
    return "responses end with " + ", ".join(f"{tokenizer.convert_ids_to_tokens(token)} ({token})" for token in ends)


def embedding_count(model: PreTrainedModel) -> int:
    """How many tokens the model has embeddings of."""
    embeddings: Any = model.get_input_embeddings()
    return int(getattr(embeddings, "num_embeddings", None) or embeddings.weight.shape[0])


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts after an assistant's message, if there is one."""
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # whatever a template raises: it may not know what to do with these messages
        return None
    _, found, after = str(text).rpartition(_MARK)
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found and after.strip() else []
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None
