"""Every causal language model of transformers, made tiny."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, END = 64, 63

_SIZES = (
    dict.fromkeys(("vocab_size", "n_vocab", "vocab_size_per_layer_input"), VOCABULARY)
    | dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "lru_width"), 32)
    | dict.fromkeys(("intermediate_size", "ffn_dim", "dff", "n_inner", "d_ff", "ffn_hidden_size"), 32)
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "mamba_d_ssm"), 32)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "n_head", "attention_heads", "num_heads", "n_heads"), 4)
    | dict.fromkeys(("decoder_attention_heads", "num_experts", "num_local_experts", "n_routed_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "num_key_value_heads"), 2)
    | dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rotary_dim"), 8)
    | dict.fromkeys(("q_lora_rank", "kv_lora_rank", "time_step_rank", "state_size", "mamba_d_state"), 8)
    | dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups"), 1)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 64)
    | {"mamba_n_heads": 4, "mamba_d_head": 16, "bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0}
)
"""By the usual names of configurations' fields."""

_MLA = (
    *(
        "axk1",
        "axk2",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hy_v4",
        "minicpm3",
    ),
    *("sarvam_mla", "youtu"),
)
_OVERRIDES: dict[str, dict[str, Any]] = {
    **{name: {"num_key_value_heads": 4} for name in _MLA},
    "bamba": {"attn_layer_indices": [1]},
    "diffllama": {"attention_dropout": 0.0},  # which refuses more
    "falcon_h1": {"mamba_d_head": 8},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0, 0.0],
        "intermediate_size": [32, 32],
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "rwkv": {"attention_hidden_size": 32},
}
"""By model type, where these names do not do."""


def model_types() -> list[str]:
    """All types that `AutoModelForCausalLM` knows."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_model(model_type: str, *, dropout: float = 0.0) -> PreTrainedModel:
    """A model with random weights large enough that its tokens differ; the same one on every call."""
    config = CONFIG_MAPPING[model_type]()
    _shrink(config, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.3)
    model.generation_config.eos_token_id = END
    return model


def _shrink(config: PreTrainedConfig, dropout: float) -> None:
    fields = vars(config)
    overrides = _OVERRIDES.get(config.model_type, {})
    fields.update({name: value for name, value in overrides.items() if name in fields})
    for name, value in fields.items():
        if name in overrides:
            continue
        if name in _SIZES and not isinstance(value, list | dict):
            fields[name] = _SIZES[name]
        elif "drop" in name and isinstance(value, float):
            fields[name] = dropout
        elif name in ("layer_types", "mlp_layer_types", "layers_block_type") and isinstance(value, list):
            fields[name] = [value[0], next((kind for kind in value if kind != value[0]), value[0])]
    for name in config.sub_configs:
        section = getattr(config, name, None)
        if isinstance(section, PreTrainedConfig):
            _shrink(section, dropout)
