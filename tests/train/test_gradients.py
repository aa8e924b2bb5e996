"""A mini-batch's gradient is the same however it is computed, and close to it in bfloat16."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from clipo_ops import mean_pool
from clipo_train.config.files import load_config
from clipo_train.learner import Learner, Scores
from clipo_train.metrics import Stopwatch
from clipo_train.objective import Credit
from clipo_train.rollout import Generation

ROLLOUTS, PROMPT, RESPONSE = 16, 6, 12
CHUNKED, LORA = ("--model.chunked_head", "true"), ("--model.lora.rank", "4")


class Taken(NamedTuple):
    """What a learner has computed."""

    learner: Learner
    scores: Scores
    losses: Tensor
    gradients: dict[str, Tensor]


@pytest.fixture
def take(config_file: Callable[..., Path], warm: Path) -> Iterator[Callable[..., Taken]]:
    config = config_file(model={"path": str(warm)}, loss={"kl_weight": 0.05}, optimizer={"minibatch_size": ROLLOUTS})

    def run(*overrides: str) -> Taken:
        AcceleratorState._reset_state(True)  # a process can choose its precision once
        settings = load_config(config, overrides)
        accelerator = Accelerator(cpu=True, mixed_precision=settings.mixed_precision)
        learner = Learner(settings, accelerator, Stopwatch(accelerator.device))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in learner.policy.parameters():  # away from the reference
                if parameter.requires_grad:
                    parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        batch = rollouts()
        scores = learner.score(batch, pool=lambda hidden, part: mean_pool(hidden, part.response_mask))
        advantages = torch.randn(ROLLOUTS, generator=generator.manual_seed(1))
        learner.model.train()
        credit = Credit(*[advantages] * len(Credit._fields))
        losses = learner._accumulate(batch, scores, credit, torch.arange(ROLLOUTS))
        named = learner.policy.named_parameters()
        gradients = {name: value.grad for name, value in named if value.grad is not None}
        return Taken(learner, scores, losses, gradients)

    yield run
    AcceleratorState._reset_state(True)


def rollouts() -> Generation:
    """Of random lengths."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(15, (ROLLOUTS, PROMPT + RESPONSE), generator=generator)
    starts = torch.randint(PROMPT, (ROLLOUTS, 1), generator=generator)
    lengths = torch.randint(1, RESPONSE + 1, (ROLLOUTS, 1), generator=generator)
    place = torch.arange(PROMPT + RESPONSE)
    mask = (place >= starts) & (place < PROMPT + lengths)
    return Generation(tokens, mask, mask[:, PROMPT:], [""] * ROLLOUTS, torch.ones(ROLLOUTS, dtype=torch.bool))


def distance(one: Taken, other: Taken) -> float:
    """Of two gradients, relative to the second."""
    assert one.gradients.keys() == other.gradients.keys()
    apart = [(value.float() - other.gradients[name]).norm() for name, value in one.gradients.items()]
    size = [value.norm() for value in other.gradients.values()]
    return float(torch.stack(apart).norm() / torch.stack(size).norm())


@pytest.mark.parametrize(
    "overrides",
    [
        ("--optimizer.micro_batch_size", "1"),
        ("--optimizer.micro_batch_size", "4"),
        ("--model.gradient_checkpointing", "true"),
        CHUNKED,
        (*CHUNKED, "--model.gradient_checkpointing", "true", "--optimizer.micro_batch_size", "4"),
    ],
)
@pytest.mark.parametrize("base", [(), LORA], ids=["all", "lora"])
def test_it_is_the_same(take: Callable[..., Taken], base: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    expected = take("--optimizer.micro_batch_size", "16", *base)
    taken = take("--optimizer.micro_batch_size", "16", *base, *overrides)
    mask = rollouts().response_mask
    for value, theirs in zip(taken.scores[:3], expected.scores[:3], strict=True):
        torch.testing.assert_close(value[mask], theirs[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(taken.scores.pooled, expected.scores.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(taken.losses, expected.losses, atol=1e-6, rtol=1e-5)
    assert min(float(value.abs().max()) for value in taken.gradients.values()) > 0
    assert distance(taken, expected) < 1e-5


@pytest.mark.parametrize("precision", ["mixed", "weights"])
@pytest.mark.parametrize("overrides", [(), CHUNKED, LORA, (*CHUNKED, *LORA)], ids=["all", "chunked", "lora", "both"])
def test_in_bfloat16_it_is_close(take: Callable[..., Taken], precision: str, overrides: tuple[str, ...]) -> None:
    option = ("--mixed_precision", "bf16") if precision == "mixed" else ("--model.dtype", "bfloat16")
    overrides = ("--loss.kl_weight", "0", *overrides)
    exact, taken = take(*overrides), take(*option, *overrides)
    assert 1e-4 < distance(taken, exact) < 0.1
    assert taken.scores.logprobs.dtype == torch.float32
    learns = {value.dtype for value in taken.learner.policy.parameters() if value.requires_grad}
    assert learns == {
        torch.bfloat16 if precision == "weights" and "--model.lora.rank" not in overrides else torch.float32
    }
    before = {name: value.detach().clone() for name, value in taken.learner.policy.named_parameters()}
    taken.learner.optimizer.step()
    moved = {name for name, value in taken.learner.policy.named_parameters() if not value.equal(before[name])}
    assert moved
    assert moved <= taken.gradients.keys()


def test_the_reference_is_scored_as_precisely_as_the_policy(take: Callable[..., Taken]) -> None:
    """Else there would be a divergence where there is none."""
    learner = take("--mixed_precision", "bf16").learner
    assert learner.reference is not None
    learner.policy.load_state_dict(learner.reference.state_dict())
    scores = learner.score(rollouts())
    assert scores.ref_logprobs is not None
    mask = rollouts().response_mask
    assert scores.ref_logprobs[mask].equal(scores.logprobs[mask])
