"""The policy's own dropout and router noise, which a policy-gradient update does without.

Rollouts are sampled and scored without dropout. An update with dropout compares two different policies: the ratio of a
policy that has not moved is then not 1, and clipping acts on noise.
"""

from typing import Any

from torch import nn


def remove_dropout(model: nn.Module) -> None:
    """Sets every dropout probability of a model to 0: in its modules, and in the configuration that some read instead.

    Adapters that are added later keep theirs.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero(vars(module))
        config = vars(module).get("config")
        if config is not None:
            _zero(vars(config))


def train_mode(model: nn.Module, *, router_noise: bool) -> None:
    """Puts a model into training mode, its noisy routers (Mixtral, PhiMoE) only if `router_noise`."""
    model.train()
    if not router_noise:
        for module in model.modules():
            if any("jitter" in name for name in vars(module)):
                module.eval()


def _zero(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, float) and "drop" in name:
            fields[name] = 0.0
