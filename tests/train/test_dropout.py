"""Updates without the model's own dropout: where the policy has not moved, its ratio is 1."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BioGptConfig,
    CTRLConfig,
    FalconConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoConfig,
    MixtralConfig,
    OPTConfig,
    PersimmonConfig,
    PhimoeConfig,
    PreTrainedConfig,
    SeedOssConfig,
    XGLMConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from clipo_train.config.files import load_config
from clipo_train.dropout import remove_dropout, train_mode
from clipo_train.report import load_metrics
from clipo_train.testbed.warm_start import build_tokenizer
from clipo_train.trainer import Trainer

SMALL = {"vocab_size": 17, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
LLAMA = SMALL | {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
MOE = LLAMA | {"num_local_experts": 4}
NOISY = [
    GPT2Config(vocab_size=17, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    GPTBigCodeConfig(vocab_size=17, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    CTRLConfig(vocab_size=17, n_embd=32, n_layer=2, n_head=2, n_positions=64, dff=32),
    OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=32, attention_dropout=0.1, max_position_embeddings=64),
    XGLMConfig(vocab_size=17, d_model=32, num_layers=2, attention_heads=2, ffn_dim=32, max_position_embeddings=64),
    BioGptConfig(**SMALL, intermediate_size=32, max_position_embeddings=64),
    FalconConfig(**SMALL, attention_dropout=0.1, hidden_dropout=0.1),
    GPTNeoConfig(
        vocab_size=17,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global"], 2]],
        attention_dropout=0.1,
        embed_dropout=0.1,
        resid_dropout=0.1,
    ),
    PersimmonConfig(**SMALL, intermediate_size=32, attention_dropout=0.1, hidden_dropout=0.1),
    SeedOssConfig(**LLAMA),
    MixtralConfig(**MOE, router_jitter_noise=0.5),
    PhimoeConfig(**MOE, router_jitter_noise=0.1, input_jitter_noise=0.5),
]


@pytest.mark.parametrize("config", NOISY, ids=lambda config: config.model_type)
def test_an_update_computes_what_scoring_did(config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    tokens = torch.arange(2, 14).view(2, 6)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=tokens, use_cache=False).logits

    model.train()
    assert not logits().equal(logits())  # it is noisy by itself
    remove_dropout(model)
    model.eval()
    scored = logits()
    train_mode(model, router_noise=False)
    torch.testing.assert_close(logits(), scored)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
@pytest.mark.parametrize(("dropout", "still"), [("false", True), ("true", False)])
def test_the_ratio_of_a_policy_that_has_not_moved(
    config_file: Callable[..., Path], tmp_path: Path, dropout: str, checkpointing: str, still: bool
) -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=17, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    model.generation_config.eos_token_id = 16
    model.save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    options = ["--model.dropout", dropout, "--model.gradient_checkpointing", checkpointing, "--steps", "1"]
    options += ["--optimizer.minibatch_size", "16"]
    config = load_config(config_file(model={"path": str(tmp_path / "model")}), options)
    step = load_metrics(Trainer(config, show_progress=False).train().parent)[-1]
    assert (step["policy/approx_kl"] < 1e-9) is still
