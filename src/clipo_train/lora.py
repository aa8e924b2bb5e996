r"""LoRA: the policy learns by small matrices beside its linear layers, which stay as they are.

$$W' = W + \frac{\alpha}{r} B A, \qquad A \in R^{r \times \text{in}},\ B \in R^{\text{out} \times r}$$
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from clipo_train.config import LoraConfig
from clipo_train.errors import ConfigError

_NAME = "default"


def add_lora(model: PreTrainedModel, config: LoraConfig, *, seed: int) -> None:
    """Puts adapters, in float32, beside the layers of the model, and makes these the only parameters that learn.

    The model does the same as before: B begins as zeros.

    Args:
        model: The policy, not yet on an accelerator.
        config: Which layers, and the adapters' size.
        seed: Of A; the global random state is left as it is.

    Raises:
        ConfigError: The model has no linear layers of these names besides its head, or layers of two kinds.
    """
    import peft

    layers = _linear_layers(model, config.target_modules)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=layers,
        fan_in_fan_out=isinstance(model.get_submodule(layers[0]), Conv1D),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _linear_layers(model: PreTrainedModel, wanted: Sequence[str] | None) -> list[str]:
    """Their whole names, given what these end with."""
    head = model.get_output_embeddings()
    kinds = {
        name: type(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    linear = list(kinds)
    if not linear:
        raise ConfigError(
            f"model.lora: expected a model with linear layers besides its head, got {type(model).__name__}"
        )
    if wanted is None:
        most = max(kinds.values(), key=list(kinds.values()).count)
        return [name for name, kind in kinds.items() if issubclass(kind, Conv1D) == issubclass(most, Conv1D)]
    found = {end: [name for name in linear if f".{name}".endswith(f".{end}")] for end in wanted}
    for end, names in found.items():
        if not names:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise ConfigError(
                f"model.lora.target_modules: expected linear layers of {type(model).__name__} other "
                f"than its head, such "
                f"as {known}, got {end!r}"
            )
    chosen = sorted({name for names in found.values() for name in names})
    if len({issubclass(kinds[name], Conv1D) for name in chosen}) > 1:
        raise ConfigError("model.lora.target_modules: expected nn.Linear or Conv1D layers, got both")
    return chosen


def without_lora(model: PreTrainedModel) -> AbstractContextManager[None]:
    """A block in which the model is the one that it was before `add_lora`."""
    from peft.helpers import rescale_adapter_scale

    block: AbstractContextManager[None] = rescale_adapter_scale(model, 0.0)
    return block


def merged_weights(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights as a model without adapters has them, one after the other, so that no second copy is held.

    Args:
        model: The policy, with adapters or without.
        weights: All of its own, by name; they are left as they are.
    """
    configs: dict[str, Any] = getattr(model, "peft_config", {})
    for name, weight in weights.items():
        layer, inside, kind = name.rpartition(".base_layer.")
        if inside and kind == "weight":
            a, b = (weights[f"{layer}.{part}.{_NAME}.weight"].float() for part in ("lora_A", "lora_B"))
            scale = configs[_NAME].lora_alpha / configs[_NAME].r
            change = (b @ a).T if configs[_NAME].fan_in_fan_out else b @ a
            yield f"{layer}.weight", (weight.float() + scale * change).to(weight.dtype)
        elif inside:
            yield f"{layer}.{kind}", weight
        elif ".lora_" not in name:
            yield name, weight


def save_policy(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the policy, its adapters merged, as a folder that transformers alone can load.

    Args:
        model: The policy, with adapters or without.
        weights: All of its own, by name, gathered from all processes.
        folder: To write to.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())  # without second names of tied weights
    weights = {name: weight for name, weight in weights.items() if name in own}
    model.save_pretrained(folder, state_dict=dict(merged_weights(model, weights)))


def save_adapters(model: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the adapters alone, as `peft.PeftModel.from_pretrained` reads them; arguments as of `save_policy`."""
    from peft import get_peft_model_state_dict

    adapters = get_peft_model_state_dict(model, dict(weights), save_embedding_layers=False)
    config = model.peft_config[_NAME]
    config.base_model_name_or_path = model.name_or_path
    config.save_pretrained(folder)
    named = {f"base_model.model.{name}": weight.contiguous() for name, weight in adapters.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
