"""Adapters learn, the rest stays; without them the policy is the one it was; merged, it needs no peft."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from clipo_ops import mean_pool
from clipo_train.checkpoint import export_checkpoint
from clipo_train.config import LoraConfig
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.lora import add_lora, merged_weights, without_lora
from clipo_train.report import load_metrics
from clipo_train.rollout import Sampling
from clipo_train.testbed.warm_start import build_model
from clipo_train.trainer import Trainer

IDS = torch.arange(2, 12)[None]


def adapted(**settings: Any) -> Any:
    """With adapters that do something."""
    model = build_model(0).eval()
    add_lora(model, LoraConfig(**{"rank": 4, "alpha": 12} | settings), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=generator)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output: Tensor = model(input_ids=IDS).logits
    return output


def test_fresh_adapters_change_nothing_and_are_all_that_learns() -> None:
    model, state = build_model(0).eval(), torch.get_rng_state()
    before = logits(model)
    add_lora(model, LoraConfig(rank=4), seed=0)
    assert logits(model).equal(before)
    assert torch.get_rng_state().equal(state)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(learns) == 2 * 7 * 2, "two for each of a layer's seven, in two layers"
    assert model.base_model is model.model, "the hidden states' hook finds the backbone"
    again = build_model(0)
    torch.rand(1)
    add_lora(again, LoraConfig(rank=4), seed=0)
    assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())


def test_without_them_it_is_the_policy_that_it_was() -> None:
    model = adapted()
    before = logits(model)
    with without_lora(model):
        torch.testing.assert_close(logits(model), logits(build_model(0).eval()))
        assert any(parameter.requires_grad for parameter in model.parameters())
    assert logits(model).equal(before)
    assert not before.allclose(logits(build_model(0).eval()), atol=0.1)


def test_merged_weights_are_pefts() -> None:
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = dict(merged_weights(model, model.state_dict()))
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    expected, plain = logits(model), build_model(1).eval()
    plain.load_state_dict(merged)
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.Linear):
            module.merge()
    theirs = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    for name, value in merged.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=1e-6)


def test_a_model_without_adapters_has_nothing_to_merge() -> None:
    model = build_model(0)
    merged = dict(merged_weights(model, model.state_dict()))
    assert merged.keys() == model.state_dict().keys()
    assert all(merged[name].data_ptr() == value.data_ptr() for name, value in model.state_dict().items())


def test_adapters_of_a_model_in_bfloat16_are_float32() -> None:
    model = build_model(0).to(torch.bfloat16)  # type: ignore[arg-type]
    add_lora(model, LoraConfig(rank=4), seed=0)
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert logits(model).dtype == torch.bfloat16
    assert {value.dtype for _, value in merged_weights(model, model.state_dict())} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["w_pack", "lm_head", "embed_tokens", "norm", "proj"])
def test_other_layers_are_refused_in_one_line(name: str) -> None:
    known = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(ConfigError, match=rf"^model\.lora\.target_modules: expected .* as {known}, got '{name}'$"):
        add_lora(build_model(0), LoraConfig(target_modules=("q_proj", name)), seed=0)


def test_layers_are_chosen_by_name() -> None:
    model = build_model(0)
    add_lora(model, LoraConfig(rank=4, target_modules=("q_proj", "layers.1.self_attn.v_proj")), seed=0)
    adapted = {name.split(".lora_")[0] for name, value in model.named_parameters() if value.requires_grad}
    attention = "model.layers.{}.self_attn.{}_proj"
    assert adapted == {attention.format(0, "q"), attention.format(1, "q"), attention.format(1, "v")}


LORA = {"rank": 4, "alpha": 8}


@pytest.fixture
def config(config_file: Callable[..., Path], warm: Path) -> Path:
    return config_file(
        steps=4,
        model={"path": str(warm), "lora": LORA},
        rollout={"max_new_tokens": 24},
        loss={"kl_weight": 0.01},
        optimizer={"learning_rate": 1e-2},
        checkpoint={"every": 2},
    )


def train(config: Path, *overrides: str) -> Path:
    return Trainer(load_config(config, overrides)).train().parent


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
def test_a_run_ends_with_a_plain_folder_and_an_adapter(config: Path, warm: Path, tmp_path: Path) -> None:
    run = train(config)
    before, final = load_file(warm / "model.safetensors"), load_file(run / "final" / "model.safetensors")
    assert final.keys() == before.keys()
    moved = {name.split(".")[-2] for name, value in final.items() if not value.equal(before[name])}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

    plain = AutoModelForCausalLM.from_pretrained(run / "final").eval()
    base = AutoModelForCausalLM.from_pretrained(warm).eval()
    assert not logits(plain).allclose(logits(base), atol=1e-2)
    with_adapter = peft.PeftModel.from_pretrained(base, run / "adapter")
    torch.testing.assert_close(logits(with_adapter), logits(plain), atol=1e-4, rtol=1e-4)
    assert with_adapter.peft_config["default"].base_model_name_or_path == str(warm)
    assert load_metrics(run)[-1]["policy/approx_kl"] > 0

    export_checkpoint(run, tmp_path / "exported")  # whose checkpoint holds the adapters alone
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    torch.testing.assert_close(exported, final)


def test_a_broken_off_run_resumes_to_the_same_adapters(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(config, "--run_dir", str(tmp_path / "unbroken"))
    step = Trainer._step

    def break_off(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "_step", break_off)
    broken = ("--run_dir", str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        train(config, *broken)
    monkeypatch.undo()
    resumed = train(config, *broken, "--resume")
    for name in ("final/model.safetensors", "adapter/adapter_model.safetensors"):
        expected = load_file(unbroken / name)
        assert all(value.equal(expected[key]) for key, value in load_file(resumed / name).items())


def test_the_reference_is_the_policy_without_adapters(config: Path) -> None:
    """No second copy is held."""
    trainer = Trainer(load_config(config))
    learner = trainer.learner
    assert learner.reference is None
    with torch.no_grad():
        for name, parameter in learner.policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    generation = trainer.engine.generate([[1, 2, 3]], samples=4, sampling=Sampling(8, 1.0))
    scores = learner.score(generation, pool=lambda hidden, part: mean_pool(hidden, part.response_mask))
    with without_lora(learner.policy):
        expected = learner.score(generation)
    assert scores.ref_logprobs is not None
    torch.testing.assert_close(scores.ref_logprobs, expected.logprobs)
    assert not scores.logprobs.allclose(scores.ref_logprobs, atol=1e-2)
