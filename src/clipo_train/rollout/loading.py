"""From the configuration to a rollout engine."""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.config import TrainConfig
from clipo_train.errors import ConfigError
from clipo_train.policy import EncodedExample
from clipo_train.rollout import RolloutEngine
from clipo_train.rollout.transformers import TransformersEngine
from clipo_train.rollout.vllm import VllmEngine
from clipo_train.special_tokens import embedding_count


def load_engine(
    config: TrainConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[EncodedExample],
    *,
    in_step: bool = False,
) -> RolloutEngine:
    """The engine of a configuration, with room for the longest of the prompts and its response.

    Args:
        config: Which engine.
        model: The policy.
        tokenizer: Its tokenizer.
        prompts: All that it will be given.
        in_step: As in `TransformersEngine`.

    Raises:
        ConfigError: A prompt has tokens that the model does not know, or a response could end beyond its positions.
        ConfigError: vLLM is not installed, does not run this model here, or shall run on several processes.
    """
    rollout, prompts = config.rollout, list(prompts)
    known = embedding_count(model)
    highest = max(max(item.prompt_ids) for item in prompts)
    if highest >= known:
        raise ConfigError(
            f"model.path: expected the model's own tokenizer, for its {known} tokens, got one with a token {highest}"
        )
    new = max(rollout.max_new_tokens, config.evaluation.max_new_tokens or 0)
    longest = max(len(item.prompt_ids) for item in prompts)
    positions = position_count(model)
    if positions is not None and longest + new > positions:
        raise ConfigError(
            f"rollout.max_new_tokens: expected at most {positions - longest} after a prompt of {longest} tokens, since "
            f"the model has {positions} positions, got {new}; or lower rollout.max_prompt_tokens"
        )
    if rollout.engine == "transformers":
        return TransformersEngine(model, tokenizer, in_step=in_step)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if processes > 1:
        raise ConfigError(f"rollout.engine: expected 'transformers' with {processes} processes, got 'vllm'")
    return VllmEngine(
        model,
        tokenizer,
        dtype="bfloat16" if config.mixed_precision == "bf16" else config.model.dtype,
        max_model_len=longest + new,
        gpu_memory_utilization=rollout.gpu_memory_utilization,
    )


def position_count(model: PreTrainedModel) -> int | None:
    """How many positions a model is made for, with the factor by which its rotary embedding is stretched, if any.

    None for models that have no such bound, such as recurrent ones.
    """
    config = model.config.get_text_config()
    count = getattr(config, "max_position_embeddings", None)
    if not isinstance(count, int):
        return None
    rope = getattr(config, "rope_parameters", None)
    factor = rope.get("factor") if isinstance(rope, dict) else None
    return int(count * factor) if isinstance(factor, int | float) and factor > 1 else count
