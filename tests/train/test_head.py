"""The contrastive head, as a trainer or an adapter uses it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipo_ops import GroupLayout, contrastive_anchors, contrastive_loss, contrastive_reward, supcon_out
from clipo_train.config import ClipoConfig
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

CONFIG = ClipoConfig(dim=8, objective="supcon_out", learning_rate=1e-2)


def batch(seed: int = 0, rollouts: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(rollouts, 16, generator=generator)
    success = torch.rand(rollouts, generator=generator) < 0.5
    return pooled, success, torch.arange(rollouts) // 6


def head(config: ClipoConfig = CONFIG, seed: int = 0) -> ClipoHead:
    return ClipoHead(16, config, seed=seed, device="cpu")


def test_rewards_are_those_of_the_ops_before_the_update() -> None:
    pooled, success, groups = batch()
    subject = head()
    weight = subject.projection.weight.detach().clone()
    rewards = subject.step(pooled, success, groups)
    loss = contrastive_loss(pooled @ weight.T, success, groups, objective=supcon_out, reduction="none")
    torch.testing.assert_close(rewards, contrastive_reward(loss))
    assert not rewards.requires_grad
    assert not subject.projection.weight.equal(weight)


def test_the_update_is_one_step_of_adamw_on_the_mean_loss() -> None:
    pooled, success, groups = batch()
    subject = head()
    twin = torch.nn.Linear(16, 8, bias=False)
    twin.load_state_dict(subject.projection.state_dict())
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.01)
    torch.autograd.backward(contrastive_loss(twin(pooled), success, groups, objective=supcon_out))
    optimizer.step()
    subject.step(pooled, success, groups)
    torch.testing.assert_close(subject.projection.weight, twin.weight)


def test_the_head_learns_to_tell_right_from_wrong() -> None:
    pooled, success, groups = batch(rollouts=96)
    pooled[success, 0] += 1.0
    subject = head()
    losses, gaps = [], []
    for _ in range(200):
        subject.step(pooled, success, groups)
        losses.append(subject.metrics["loss"])
        gaps.append(subject.metrics["similarity_positive"] - subject.metrics["similarity_negative"])
    assert losses[-1] < 0.5 * losses[0]
    assert gaps[-1] > gaps[0] + 0.2


def test_a_frozen_head_stays_as_it_was_drawn() -> None:
    subject = head(dataclasses.replace(CONFIG, frozen=True))
    before = subject.projection.weight.detach().clone()
    assert (subject.step(*batch()) < 0).any()
    assert subject.projection.weight.equal(before)


@pytest.mark.parametrize("scope", ["group", "cross", "batch"])
def test_an_mlp_learns_at_every_scope_and_is_restored(scope: Any) -> None:
    config = dataclasses.replace(CONFIG, head="mlp", scope=scope, similarity="l2", offset="log_positives")
    subject, losses = head(config), []
    for _ in range(30):
        subject.step(*batch())
        losses.append(subject.metrics["loss"])
    assert losses[-1] < losses[0] - 0.5
    restored = head(config, seed=1)
    restored.load_state_dict(subject.state_dict())
    assert restored.step(*batch()).equal(subject.step(*batch()))
    with pytest.raises(ConfigError, match=r"^clipo.dim, clipo.head: expected a head of shape"):
        head().load_state_dict(subject.state_dict())


def test_warm_up_epochs_are_steps_on_the_same_batch() -> None:
    once = head()
    several = head(dataclasses.replace(CONFIG, warmup_steps=1, warmup_epochs=5))
    rewards = once.step(*batch())
    assert several.step(*batch()).equal(rewards)  # those of the head as it was
    assert several.metrics == once.metrics
    for _ in range(4):
        once.step(*batch())
    assert several.projection.weight.equal(once.projection.weight)
    assert (several.steps, several.warming_up) == (1, False)
    assert several.step(*batch(1)).equal(once.step(*batch(1)))  # after the warm-up, one a batch
    assert several.projection.weight.equal(once.projection.weight)


def test_hidden_states_get_no_gradient() -> None:
    pooled, success, groups = batch()
    pooled.requires_grad_()
    head().step(pooled, success, groups)
    assert pooled.grad is None


def test_a_batch_without_anchors_leaves_the_head_alone() -> None:
    pooled, success, groups = batch()
    subject = head()
    before = subject.projection.weight.detach().clone()
    rewards = subject.step(pooled, torch.ones_like(success), groups)
    assert rewards.eq(0).all()
    assert subject.projection.weight.equal(before)
    assert subject.metrics["loss"] == 0
    assert subject.metrics["anchor_fraction"] == 0


@given(st.integers(0, 1000))
def test_metrics_count_anchors_and_clamped_ones(seed: int) -> None:
    pooled, success, groups = batch(seed)
    subject = head(ClipoConfig(dim=8, objective="supcon_out", floor=-0.4))
    rewards = subject.step(pooled, success, groups)
    anchors = contrastive_anchors(success, groups)
    assert abs(subject.metrics["anchor_fraction"] - float(anchors.float().mean())) < 1e-6
    if anchors.any():
        clamped = float((rewards[anchors] <= -0.4).float().mean())
        assert abs(subject.metrics["clamp_fraction"] - clamped) < 1e-6
    assert rewards[~anchors].eq(0).all()


def test_seeds_decide_weights_and_draws_and_the_global_generator_is_untouched() -> None:
    config = ClipoConfig(dim=8)  # infonce: sampled positives
    pooled, success, groups = batch()
    before = torch.get_rng_state()
    first, again, other = head(config, 1), head(config, 1), head(config, 2)
    rewards = first.step(pooled, success, groups)
    torch.testing.assert_close(rewards, again.step(pooled, success, GroupLayout.from_ids(groups)))
    assert not rewards.allclose(other.step(pooled, success, groups), atol=1e-3)
    assert torch.get_rng_state().equal(before)


def test_an_evaluation_gives_rewards_and_changes_nothing() -> None:
    config = ClipoConfig(dim=8)  # infonce: sampled positives
    subject, twin = head(config, 1), head(config, 1)
    rewards = subject.step(*batch(), learn=False)
    assert subject.steps == 0
    torch.testing.assert_close(rewards, subject.step(*batch()))
    torch.testing.assert_close(rewards, twin.step(*batch()))
    assert subject.projection.weight.equal(twin.projection.weight)


def test_a_restored_head_goes_on_exactly(tmp_path: Path) -> None:
    config = ClipoConfig(dim=8, warmup_steps=3)
    pooled, success, groups = batch()
    original = head(config, 1)
    original.step(pooled, success, groups)
    torch.save(original.state_dict(), tmp_path / "head.pt")
    restored = head(config, 5)
    restored.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    for step in range(1, 4):
        assert original.warming_up == restored.warming_up == (step < 3)
        assert original.step(pooled, success, groups).equal(restored.step(pooled, success, groups))
    assert original.projection.weight.equal(restored.projection.weight)
