"""TRL's corrections for the rollout engine, and its masks of responses and tokens, from its own trainer."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from clipo_ops import (
    aggregate,
    masked_importance_weights,
    off_policy_sequence_mask,
    token_entropy,
    token_logprobs,
    top_entropy_mask,
    truncated_importance_weights,
)

from ..ops.helpers import assert_same, gradients
from ..ops.strategies import SEEDS, noise
from .batches import Tokens, clipped_tokens, ours, tokens
from .trl_stub import generated, loss_and_gradient, trainer


def theirs(batch: Tokens, rollout: Tensor, mode: str, **clip: float) -> Tensor:
    """TRL's weights for a batch whose responses have no holes."""
    sampled = [
        [x if x == x else None for x in row[valid].tolist()] for row, valid in zip(rollout, batch.mask, strict=True)
    ]
    options = {f"vllm_importance_sampling_{name}": value for name, value in {"mode": mode, **clip}.items()}
    rewards, options["use_vllm"] = torch.zeros(len(rollout), 1), True
    result = generated(rewards, old_logprobs=batch.old_logprobs, sampled=sampled, num_generations=1, **options)
    return result["importance_sampling_ratio"].expand_as(rollout)


@pytest.mark.parametrize("level", ["token", "sequence"])
@given(batch=tokens(holes=False), unknown=st.booleans())
def test_importance_weights_are_the_same(level: str, batch: Tokens, unknown: bool) -> None:
    rollout = batch.logprobs.float().double()
    if unknown:
        rollout[0, 0] = torch.nan
    pair = (batch.old_logprobs, rollout, batch.mask)
    truncated = theirs(batch, rollout, f"{level}_truncate", clip_min=None, clip_max=2.0)
    assert_same(truncated_importance_weights(*pair, level=level), truncated)
    masked = theirs(batch, rollout, f"{level}_mask", clip_min=0.5, clip_max=2.0)
    assert_same(masked_importance_weights(*pair, level=level), masked)


@given(batch=tokens(), threshold=st.sampled_from([0.0, 0.05, 0.5]), unknown=st.booleans())
def test_the_off_policy_mask_is_the_same(batch: Tokens, threshold: float, unknown: bool) -> None:
    old = batch.old_logprobs.clone()
    if unknown:
        old[0, 0] = torch.nan
    given = (batch.logprobs, old)
    keep = GRPOTrainer.get_off_policy_mask(batch.advantages.unsqueeze(1), *given, batch.mask.long(), threshold)
    low, high = (
        off_policy_sequence_mask(*given, batch.advantages, batch.mask, threshold=bound)
        for bound in (max(threshold - 1e-9, 0), threshold + 1e-9)
    )
    beside_the_threshold = low == high  # on it, rounding decides
    theirs = batch.mask & keep.bool()
    assert torch.equal(high[beside_the_threshold], theirs[beside_the_threshold])


@given(batch=tokens(), fraction=st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]))
def test_the_top_entropy_mask_is_the_same(batch: Tokens, fraction: float) -> None:
    entropy = batch.entropy.float()
    keep = trainer().get_high_entropy_mask(entropy, batch.mask.long(), 1 - fraction)
    assert torch.equal(top_entropy_mask(entropy, batch.mask, fraction=fraction), keep)


@given(batch=tokens())
def test_a_loss_with_all_of_them_has_the_same_value_and_gradient(batch: Tokens) -> None:
    rollout = batch.old_logprobs - 0.1 * batch.entropy

    def loss(x: Tensor, batch: Tokens) -> Tensor:
        keep = off_policy_sequence_mask(x, rollout, batch.advantages, batch.mask, threshold=0.1)
        forks = top_entropy_mask(batch.entropy.float(), batch.mask, fraction=0.5)
        weight = truncated_importance_weights(batch.old_logprobs, rollout, batch.mask, cap=1.5)
        values = torch.where(keep & forks, clipped_tokens(x, batch) * weight, 0)
        return aggregate(values, batch.mask, mode="seq-mean-token-mean")

    weight = (batch.old_logprobs - rollout).exp().clamp(max=1.5)
    settings: dict[str, Any] = {"off_policy_mask_threshold": 0.1, "top_entropy_quantile": 0.5, "use_vllm": True}
    given = {"sampling_per_token_logps": rollout, "importance_sampling_ratio": weight}
    short = batch._replace(entropy=batch.entropy.float())
    assert_same(ours(loss, batch), loss_and_gradient(short, inputs=given, loss_type="grpo", **settings))


@given(seed=SEEDS)
def test_entropy_and_log_probabilities_are_the_same(seed: int) -> None:
    logits, ids = 3 * noise(seed, 2, 3, 5), torch.arange(6).view(2, 3) % 5
    assert_same(gradients(token_entropy, logits), gradients(entropy_from_logits, logits))
    theirs = gradients(lambda x: selective_log_softmax(x, ids), logits)
    assert_same(gradients(lambda x: token_logprobs(x, ids), logits), theirs)


# --- where TRL's numbers break


def test_trl_has_no_entropy_quantile_of_more_than_16_million_tokens() -> None:
    entropy = torch.linspace(0, 1, 2**24 + 1).unsqueeze(0)
    mask = torch.ones_like(entropy, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="input tensor is too large"):
        trainer().get_high_entropy_mask(entropy, mask, 0.8)
    assert top_entropy_mask(entropy, mask).sum() == 2**24 // 5 + 1


def test_a_ratio_of_100_nats_is_infinite_in_trl() -> None:
    logprobs = torch.tensor([[-1.0]])
    batch = Tokens(logprobs, logprobs, torch.zeros(1), torch.tensor([[True]]), logprobs)
    rollout = logprobs - 100
    assert theirs(batch, rollout, "token_mask", clip_min=None, clip_max=None).isposinf().all()
    weight = masked_importance_weights(logprobs, rollout, batch.mask, high=float("inf"))
    assert_same(weight, torch.tensor([[80.0]]).exp())  # clamped at 80 nats
