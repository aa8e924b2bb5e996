"""TRL's `_compute_loss`, every loss type: the same value and gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from clipo_ops import (
    aggregate,
    cispo_loss,
    dapo_loss,
    dr_grpo_loss,
    gmpo_loss,
    grpo_loss,
    gspo_loss,
    kl_estimate,
    log_ratio,
    luspo_loss,
    sapo_loss,
    unbiased_kl_estimate,
    vespo_loss,
)

from ..ops.helpers import assert_same
from .batches import Tokens, clipped_tokens, ours, tokens
from .trl_stub import GMPOTrainer, loss_and_gradient

Loss = Callable[[Tensor, Tokens], Tensor]
BOUNDS = {"epsilon": 0.2, "epsilon_high": 0.28}


def recipe(loss: Callable[..., Tensor], **hyperparameters: Any) -> Loss:
    return lambda x, batch: loss(x, batch.old_logprobs, batch.advantages, batch.mask, **hyperparameters)


def clipped(x: Tensor, batch: Tokens, mode: str = "token-mean", **bounds: float) -> Tensor:
    return aggregate(clipped_tokens(x, batch, **bounds), batch.mask, mode=mode)


def with_kl(x: Tensor, batch: Tokens, *, corrected: bool) -> Tensor:
    """The reference model is the one of the old log-probabilities."""
    kl = kl_estimate(x, batch.old_logprobs)
    if corrected:
        kl = unbiased_kl_estimate(x, batch.old_logprobs, log_ratio(x, batch.old_logprobs, batch.mask))
    return recipe(grpo_loss)(x, batch) + 0.04 * aggregate(kl, batch.mask, mode="seq-mean-token-mean")


CASES: dict[str, tuple[Loss, dict[str, Any]]] = {
    "grpo": (recipe(grpo_loss), {"loss_type": "grpo"}),
    "grpo with a KL term": (
        partial(with_kl, corrected=False),
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
    ),
    "grpo with a corrected KL term": (partial(with_kl, corrected=True), {"loss_type": "grpo", "beta": 0.04}),
    "grpo with two-sided clipping": (
        lambda x, batch: clipped(x, batch, "seq-mean-token-mean", delta=1.5),
        {"loss_type": "grpo", "delta": 1.5},
    ),
    "bnpo": (clipped, {"loss_type": "bnpo"}),
    "dr_grpo": (recipe(dr_grpo_loss, max_length=9), {"loss_type": "dr_grpo", "max_completion_length": 9}),
    "dapo": (recipe(dapo_loss), {"loss_type": "dapo", **BOUNDS}),
    "cispo": (recipe(cispo_loss, ratio_high=2.0), {"loss_type": "cispo", "epsilon_high": 2.0}),
    "sapo": (recipe(sapo_loss), {"loss_type": "sapo"}),
    "vespo": (recipe(vespo_loss), {"loss_type": "vespo"}),
    "luspo": (
        recipe(luspo_loss, epsilon_low=0.2, epsilon_high=0.28),
        {"loss_type": "luspo", "importance_sampling_level": "sequence", **BOUNDS},
    ),
    "gspo": (
        recipe(gspo_loss, epsilon_low=0.2, epsilon_high=0.28),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", **BOUNDS},
    ),
    "gmpo": (recipe(gmpo_loss), {"cls": GMPOTrainer, "epsilon": 0.4}),
}


@pytest.mark.parametrize("name", CASES)
@given(batch=tokens())
def test_has_the_same_value_and_gradient(name: str, batch: Tokens) -> None:
    loss, settings = CASES[name]
    theirs = loss_and_gradient(batch, inputs={"ref_per_token_logps": batch.old_logprobs}, **settings)
    assert_same(ours(loss, batch), theirs, rtol=1e-6 if name == "sapo" else 1e-9)  # TRL's 1.05 is one of float32


# --- where TRL's numbers break


def one_token(log_ratio: float, advantage: float) -> Tokens:
    logprobs = torch.full((1, 1), -1.0)
    return Tokens(logprobs, logprobs - log_ratio, torch.tensor([advantage]), logprobs < 0, -logprobs)


@pytest.mark.parametrize(
    ("advantage", "value", "gradient"),
    [(0.0, torch.nan, torch.nan), (1.0, -1.2, torch.nan), (-1.0, torch.inf, torch.inf)],
)
def test_a_log_ratio_of_100_breaks_trl(advantage: float, value: float, gradient: float) -> None:
    batch = one_token(100.0, advantage)
    theirs = loss_and_gradient(batch, loss_type="grpo", epsilon=0.2)
    assert_same(theirs, (torch.tensor(value), torch.tensor([[gradient]])))
    exact = {0.0: 0.0, 1.0: -1.2, -1.0: torch.tensor(20.0).exp().item()}[advantage]  # clamped at 20 nats
    assert_same(ours(recipe(grpo_loss), batch), (torch.tensor(exact), torch.tensor([[0.0]])))


def test_a_kl_of_100_nats_breaks_trl() -> None:
    batch = one_token(-100.0, 0.0)
    given = {"old_per_token_logps": batch.logprobs, "ref_per_token_logps": batch.old_logprobs}
    theirs = loss_and_gradient(batch, inputs=given, loss_type="grpo", beta=1.0, use_bias_correction_kl=False)
    assert_same(theirs, (torch.tensor(torch.inf), torch.tensor([[-torch.inf]])))
    value, gradient = ours(lambda x, b: kl_estimate(x, b.old_logprobs).sum(), batch)
    assert_same(value, torch.tensor(20.0).exp() - 21)
    assert_same(gradient, torch.zeros(1, 1))


@given(batch=tokens())
def test_nan_under_a_false_mask_reaches_trls_loss_and_not_ours(batch: Tokens) -> None:
    loss, settings = CASES["dapo"]
    padded = batch._replace(mask=torch.nn.functional.pad(batch.mask, (0, 1)))
    nan = {
        name: torch.nn.functional.pad(getattr(batch, name), (0, 1), value=torch.nan)
        for name in ("logprobs", "old_logprobs", "entropy")
    }
    assert loss_and_gradient(padded._replace(**nan), **settings)[0].isnan()
    value, gradient = ours(loss, padded._replace(**nan))
    exact, without = ours(loss, batch)
    assert_same(value, exact)
    assert_same(gradient, torch.nn.functional.pad(without, (0, 1)))


def test_the_mean_of_micro_batches_is_the_mean_of_the_batch_for_us_only() -> None:
    """TRL's bnpo, on rollouts of 1 and 3 tokens: (1 + 3) / 2 where it is (1 + 9) / 4."""
    one, three = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
    zero = torch.zeros(1, 3)
    parts = [Tokens(zero, zero, -torch.tensor([a]), m, zero) for a, m in ((1.0, one), (3.0, three))]
    theirs = [loss_and_gradient(part, loss_type="bnpo")[0] for part in parts]
    assert_same(sum(theirs) / 2, torch.tensor(2.0))
    mine = [recipe(dapo_loss, denominator=4.0)(part.logprobs, part) for part in parts]
    assert_same(sum(mine), torch.tensor(2.5))
