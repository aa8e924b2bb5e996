"""Policy losses by the names that verl finds them under: the same value and gradient as verl's own."""

from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn
from verl.workers.config import ActorConfig
from verl.workers.config.actor import PolicyLossConfig

from clipo_ops import vespo_loss
from clipo_train.adapters.verl.losses import LOSSES, reduce

from ...ops import helpers
from ...ops.strategies import SEEDS, masks, noise
from ...parity.batches import Tokens, tokens

assert_same = partial(helpers.assert_same, rtol=1e-6, atol=1e-8)  # verl adds 1e-8 to denominators

BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
MODES = ["token-mean", "token-sum", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "clipo_clipped": ("vanilla", BOUNDS | {"clip_ratio_c": 1.5}),
    "clipo_gspo": ("gspo", BOUNDS),
    "clipo_gmpo": ("geo_mean", BOUNDS),
    "clipo_cispo": ("cispo", BOUNDS),
    "clipo_sapo": ("sapo", {"tau_pos": 1.0, "tau_neg": 1.2}),
    "clipo_dppo_tv": ("dppo_tv", {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1, "clip_ratio_c": 3.0}),
    "clipo_dppo_kl": ("dppo_kl", {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1, "clip_ratio_c": 3.0}),
    "clipo_clip_cov": ("clip_cov", BOUNDS | {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1}),  # drops all it may draw
    "clipo_kl_cov": ("kl_cov", {"kl_cov_ratio": 0.3, "ppo_kl_coef": 0.5}),
    "clipo_policy_gradient": ("gpg", {}),
}


@cache
def config(**settings: Any) -> ActorConfig:
    policy_loss = {name: settings.pop(name) for name in list(settings) if name in PolicyLossConfig.__dataclass_fields__}
    common = {"strategy": "fsdp", "rollout_n": 2, "ppo_micro_batch_size_per_gpu": 1}
    return ActorConfig(**common, policy_loss=PolicyLossConfig(**policy_loss), **settings)


def call(name: str, batch: Tokens, mode: str, actor: ActorConfig, weights: Tensor | None = None) -> Any:
    """Value, gradient and metrics; the mask boolean, as verl's `ppo_loss` gives it."""
    leaf = batch.logprobs.clone().requires_grad_()
    advantages = batch.advantages.unsqueeze(1).expand(leaf.shape).clone()
    loss, metrics = get_policy_loss_fn(name)(
        old_log_prob=batch.old_logprobs,
        log_prob=leaf,
        advantages=advantages,
        response_mask=batch.mask,
        loss_agg_mode=mode,
        config=actor,
        rollout_is_weights=weights,
    )
    return (loss.detach(), torch.autograd.grad(loss, leaf)[0]), metrics


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PEERS)
@given(batch=tokens(), weighted=st.booleans())
def test_is_the_same_as_verls(name: str, mode: str, batch: Tokens, weighted: bool) -> None:
    assume(name != "clipo_kl_cov" or batch.advantages.any())  # of equal covariances, verl takes any
    peer, settings = PEERS[name]
    weights = batch.entropy.clamp(0.1, 2.0) if weighted else None
    mine, metrics = call(name, batch, mode, config(**settings), weights)
    theirs, other = call(peer, batch, mode, config(**settings), weights)
    assert_same(mine, theirs)
    if name != "clipo_kl_cov" and other:  # which logs magnitudes
        assert_same(metrics["actor/ppo_kl"], other["actor/ppo_kl"], rtol=1e-5)
    if name in ("clipo_cispo", "clipo_gspo"):
        assert_same(metrics["actor/pg_clipfrac"], other["actor/pg_clipfrac"], rtol=1e-5)


@given(batch=tokens())
def test_vespo_which_verl_has_not_is_that_of_clipo_ops(batch: Tokens) -> None:
    mine, _ = call("clipo_vespo", batch, "token-mean", config())
    leaf = batch.logprobs.clone().requires_grad_()
    loss = vespo_loss(leaf, batch.old_logprobs, batch.advantages, batch.mask)
    assert_same(mine, (loss.detach(), torch.autograd.grad(loss, leaf)[0]))


def test_every_loss_is_compared() -> None:
    assert set(LOSSES) == {*PEERS, "clipo_vespo"}


@pytest.mark.parametrize("mode", MODES)
@given(mask=masks(), seed=SEEDS, ranks=st.integers(1, 4), scale=st.sampled_from([None, 9]))
def test_reductions_over_micro_batches_and_ranks_are_verls(
    mode: str, mask: Tensor, seed: int, ranks: int, scale: int | None
) -> None:
    info = {"dp_size": ranks, "batch_num_tokens": 17, "global_batch_size": 12, "loss_scale_factor": scale}
    values = noise(seed, *mask.shape)
    assert_same(reduce(values, mask, mode, info), agg_loss(values, mask.double(), mode, **info))


@given(batch=tokens())
def test_the_parts_of_a_mini_batch_add_up(batch: Tokens) -> None:
    """By what verl says of the whole one, however rollouts are spread over micro-batches."""
    actor = config(**BOUNDS)
    whole, _ = call("clipo_clipped", batch, "token-mean", actor)
    try:
        actor.global_batch_info.update(dp_size=1, batch_num_tokens=int(batch.mask.sum()))
        halves = [Tokens(*(field[rows] for field in batch)) for rows in (slice(0, 1), slice(1, None))]
        parts = [call("clipo_clipped", half, "token-mean", actor)[0] for half in halves]
    finally:
        actor.global_batch_info.clear()
    assert_same((parts[0][0] + parts[1][0], torch.cat([parts[0][1], parts[1][1]])), whole)


def test_a_mini_batch_without_a_token_is_a_differentiable_zero() -> None:
    empty = Tokens(*(torch.zeros(2, 3) for _ in range(5)))._replace(mask=torch.zeros(2, 3).bool())
    empty = empty._replace(advantages=torch.ones(2))
    for name in LOSSES:
        (value, gradient), _ = call(name, empty, "token-mean", config())
        assert value == 0
        assert gradient.eq(0).all()


def test_several_ranks_and_no_word_on_the_whole_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^global_batch_info.batch_num_tokens: expected that of all 2 ranks, got none$"
    ):
        reduce(torch.ones(1, 1), torch.ones(1, 1).bool(), "token-mean", {"dp_size": 2})
