"""All surrogates in one form, their oracles, and the gradient of their reduced loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import clipo_ops
from clipo_ops import Surrogate, aggregate

from . import oracles
from .helpers import gradients
from .strategies import Tokens

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Surrogate]

# Name -> the tensors it takes, and options under which nothing is drawn.
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "clipped_surrogate": ("log_ratio advantages", {}),
    "sapo_surrogate": ("log_ratio advantages", {}),
    "fipo_surrogate": ("log_ratio advantages mask", {}),
    "policy_gradient_surrogate": ("logprobs advantages", {}),
    "cispo_surrogate": ("logprobs log_ratio advantages", {}),
    "dppo_surrogate": ("logprobs log_ratio advantages", {}),
    "dis_surrogate": ("logprobs log_ratio advantages", {}),
    "geometric_mean_surrogate": ("log_ratio advantages mask", {}),
    "vespo_surrogate": ("logprobs log_ratio advantages mask", {}),
    "topr_surrogate": ("logprobs log_ratio advantages mask", {}),
    "dro_surrogate": ("logprobs log_ratio advantages mask", {}),
    "clip_cov_surrogate": ("logprobs log_ratio advantages mask", {"fraction": 1.0}),
    "kl_cov_surrogate": ("logprobs log_ratio advantages mask", {}),
}
NAMES = list(ARGUMENTS)
PER_TOKEN = [name for name in NAMES if name != "geometric_mean_surrogate"]


def call(name: str, batch: Tokens, log_ratio: Tensor | None = None, **options: Any) -> Surrogate:
    """The surrogate of a batch; its log-ratio is of any size unless given, beyond the +-20 of `log_ratio` too."""
    names, own = ARGUMENTS[name]
    return getattr(clipo_ops, name)(*_tensors(names, batch, log_ratio), **(own | options))


def oracle(name: str, batch: Tokens, **options: Any) -> Tensor:
    return getattr(oracles, name)(*_tensors(ARGUMENTS[name][0], batch, None), **options)


def _tensors(names: str, batch: Tokens, log_ratio: Tensor | None) -> list[Tensor]:
    available = {**batch._asdict(), "log_ratio": ratios(batch) if log_ratio is None else log_ratio}
    return [available[name] for name in names.split()]


def ratios(batch: Tokens) -> Tensor:
    return batch.logprobs - batch.old_logprobs


def reduced(name: str, batch: Tokens, **options: Any) -> tuple[Tensor, ...]:
    """Mean loss of the rollouts, and its gradient."""
    return gradients(
        lambda x: aggregate(
            call(name, batch._replace(logprobs=x), **options).loss, batch.mask, mode="seq-mean-token-mean"
        ),
        batch.logprobs,
    )


def cast(batch: Tokens, dtype: torch.dtype) -> Tokens:
    return batch._replace(
        logprobs=batch.logprobs.to(dtype),
        old_logprobs=batch.old_logprobs.to(dtype),
        advantages=batch.advantages.to(dtype),
    )
