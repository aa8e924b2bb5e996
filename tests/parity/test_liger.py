"""Liger Kernel's fused linear GRPO loss: the same value, and the same gradients of hidden states and head.

It works in float32, so what is compared is what float32 can tell apart.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
from torch import Tensor

from clipo_ops import (
    aggregate,
    cispo_loss,
    clipped_surrogate,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    gspo_loss,
    kl_estimate,
    linear_token_logprobs,
    log_ratio,
    luspo_loss,
    sapo_loss,
    vespo_loss,
)

from ..ops.helpers import assert_same
from ..ops.strategies import noise
from .batches import Tokens, tokens

BOUNDS = {"epsilon_low": 0.2, "epsilon_high": 0.28}
VOCABULARY, HIDDEN = 11, 5


class Head(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    ids: Tensor


@st.composite
def heads(draw: st.DrawFn) -> tuple[Head, Tokens]:
    """A linear head for a batch, whose old log-probabilities are those of another weight."""
    batch, seed = draw(tokens()), draw(st.integers(0, 2**16))
    rows, width = batch.mask.shape
    ids = torch.arange(rows * width).view(rows, width) % VOCABULARY
    hidden, weight, bias = (
        noise(seed + k, *shape).float()
        for k, shape in enumerate(((rows, width, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,)))
    )
    moved = weight + draw(st.sampled_from([0.0, 0.1])) * noise(seed + 3, VOCABULARY, HIDDEN).float()
    old = linear_token_logprobs(hidden, moved, ids, bias=bias).logprobs
    advantages, entropy = batch.advantages.float(), batch.entropy.float()
    return Head(hidden, weight, bias, ids), Tokens(old, old, advantages, batch.mask, entropy)


def gradients(loss: Callable[..., Tensor], head: Head) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in head[:3]]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def theirs(head: Head, batch: Tokens, **settings: Any) -> tuple[Tensor, ...]:
    fused = LigerFusedLinearGRPOLoss(**{"beta": 0.0, "compiled": False, "use_ref_model": False, **settings})

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = (hidden, weight, head.ids, batch.mask.float(), batch.advantages, bias)
        return fused(*given, old_per_token_logps=batch.old_logprobs, ref_per_token_logps=batch.old_logprobs)[0]

    return gradients(loss, head)


def ours(head: Head, batch: Tokens, recipe: Callable[[Tensor, Tokens], Tensor], temperature: float = 1.0) -> Any:
    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options = {"bias": bias, "temperature": temperature, "chunk_size": 4}
        return recipe(linear_token_logprobs(hidden, weight, head.ids, **options).logprobs, batch)

    return gradients(loss, head)


def recipe(loss: Callable[..., Tensor], **hyperparameters: Any) -> Callable[[Tensor, Tokens], Tensor]:
    return lambda x, batch: loss(x, batch.old_logprobs, batch.advantages, batch.mask, **hyperparameters)


def with_kl(x: Tensor, batch: Tokens) -> Tensor:
    return recipe(dapo_loss, **BOUNDS)(x, batch) + 0.5 * aggregate(kl_estimate(x, batch.old_logprobs), batch.mask)


def two_sided(x: Tensor, batch: Tokens) -> Tensor:
    ratio = log_ratio(x, batch.old_logprobs, batch.mask)
    return aggregate(clipped_surrogate(ratio, batch.advantages, delta=1.3).loss, batch.mask)


CASES: dict[str, tuple[Callable[[Tensor, Tokens], Tensor], dict[str, Any]]] = {
    "grpo": (recipe(grpo_loss), {}),
    "dapo": (recipe(dapo_loss), BOUNDS),
    "dapo with a KL term": (with_kl, {"loss_type": "dapo", "beta": 0.5, "use_ref_model": True, **BOUNDS}),
    "bnpo with two-sided clipping": (two_sided, {"loss_type": "bnpo", "delta": 1.3}),
    "dr_grpo": (recipe(dr_grpo_loss, max_length=9), {"max_completion_length": 9}),
    "cispo": (recipe(cispo_loss, ratio_high=1.2), {"epsilon_high": 1.2}),
    "sapo": (recipe(sapo_loss), {}),
    "vespo": (recipe(vespo_loss), {}),
    "luspo": (recipe(luspo_loss, **BOUNDS), {"importance_sampling_level": "sequence", **BOUNDS}),
    "gspo": (
        recipe(gspo_loss, **BOUNDS),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", **BOUNDS},
    ),
}


@pytest.mark.parametrize("name", CASES)
@given(case=heads(), chunk=st.sampled_from([1, 2, 64]))
def test_has_the_same_value_and_gradients(name: str, case: tuple[Head, Tokens], chunk: int) -> None:
    loss, settings = CASES[name]
    peer = theirs(*case, **{"loss_type": name, "chunk_size": chunk, **settings})
    assert_same(ours(*case, loss), peer, rtol=1e-4, atol=1e-5)


@given(case=heads(), temperature=st.sampled_from([0.3, 0.7, 2.0]))
def test_has_the_same_temperature(case: tuple[Head, Tokens], temperature: float) -> None:
    peer = theirs(*case, loss_type="dapo", temperature=temperature, **BOUNDS)
    assert_same(ours(*case, recipe(dapo_loss), temperature), peer, rtol=1e-4, atol=1e-4)


# --- where Liger's numbers break


def uniform(mask: Tensor, log_ratio: float) -> tuple[Head, Tokens]:
    """A head that gives every word the same probability, and old log-probabilities at some distance from that."""
    rows, width = mask.shape
    hidden, weight = torch.zeros(rows, width, HIDDEN), torch.zeros(VOCABULARY, HIDDEN)
    ids = torch.zeros(rows, width, dtype=torch.long)
    old = -torch.full((rows, width), float(VOCABULARY)).log() - log_ratio
    return Head(hidden, weight, torch.zeros(VOCABULARY), ids), Tokens(old, old, torch.ones(rows), mask, old)


def test_a_log_ratio_of_100_breaks_liger() -> None:
    case = uniform(torch.tensor([[True]]), 100.0)
    case = case[0], case[1]._replace(advantages=torch.zeros(1))
    assert theirs(*case, loss_type="dapo")[0].isnan()
    assert all(x.count_nonzero() == 0 for x in ours(*case, recipe(dapo_loss)))


def test_luspo_per_token_counts_padding_in_liger() -> None:
    """Rollouts of 1 and 3 tokens, every one of loss -1: their sums have mean -2. Liger's mean is over the width."""
    mask = torch.tensor([[True, False, False], [True, True, True]])
    head, batch = uniform(mask, 0.0)
    batch = batch._replace(old_logprobs=torch.where(mask, batch.old_logprobs, batch.old_logprobs - 0.1))
    value = theirs(head, batch, loss_type="luspo")[0]
    assert_same(value, -(1 + 2 * torch.tensor(0.1).exp() + 9) / 6, rtol=1e-6)
    token_sum = ours(head, batch, lambda x, b: aggregate(_surrogate(x, b), b.mask, mode="seq-mean-token-sum"))[0]
    assert_same(token_sum, torch.tensor(-2.0), rtol=1e-6)


def _surrogate(x: Tensor, batch: Tokens) -> Tensor:
    return clipped_surrogate(log_ratio(x, batch.old_logprobs, batch.mask), batch.advantages).loss
