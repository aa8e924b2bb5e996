"""Hypothesis strategies for batches, with the shapes and values that break such code."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

INT64 = st.integers(-(2**63), 2**63 - 1)
SEEDS = st.integers(0, 2**16)
TEMPERATURES = st.sampled_from([0.01, 0.05, 0.2, 1.0, 10.0])


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def group_ids(draw: st.DrawFn, min_size: int = 1, max_size: int = 16) -> Tensor:
    """Any ids in any order; one to five groups of any sizes, singletons included."""
    ids = draw(st.lists(INT64, min_size=1, max_size=5, unique=True))
    return torch.tensor(draw(st.lists(st.sampled_from(ids), min_size=min_size, max_size=max_size)))


class Batch(NamedTuple):
    embeddings: Tensor
    success: Tensor
    ids: Tensor


@st.composite
def batches(draw: st.DrawFn, max_size: int = 16) -> Batch:
    """Embeddings of any length; some are zero, some are equal or opposite to the first."""
    ids = draw(group_ids(max_size=max_size))
    count = len(ids)
    embeddings = noise(draw(SEEDS), count, draw(st.integers(1, 6))) * draw(st.sampled_from([1e-3, 1.0, 1e3]))
    kinds = draw(st.lists(st.sampled_from(["own", "own", "own", "zero", "equal", "opposite"]), min_size=count))
    for i, kind in enumerate(kinds[:count]):
        factor = {"zero": 0, "equal": 2, "opposite": -1}.get(kind)
        if factor is not None:
            embeddings[i] = embeddings[0] * factor
    return Batch(embeddings, torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))), ids)


@st.composite
def anchored_batches(draw: st.DrawFn) -> Batch:
    """One or two interleaved groups that have anchors, and embeddings that have a gradient."""
    sizes = draw(st.lists(st.tuples(st.integers(2, 4), st.integers(1, 3)), min_size=1, max_size=2))
    success = torch.tensor([kind for right, wrong in sizes for kind in [True] * right + [False] * wrong])
    ids = torch.tensor([g for g, (right, wrong) in enumerate(sizes) for _ in range(right + wrong)])
    order = torch.tensor(draw(st.permutations(range(len(ids)))))
    return Batch(noise(draw(SEEDS), len(ids), draw(st.integers(2, 5))), success[order], ids[order])


@st.composite
def graded_groups(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rewards and group ids: binary, graded, any, and groups of one constant."""
    ids = draw(group_ids())
    values = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.integers(-3, 3), st.floats(-1e3, 1e3, width=32)]))
    rewards = torch.tensor(draw(st.lists(values, min_size=len(ids), max_size=len(ids))), dtype=torch.float64)
    if draw(st.booleans()):
        rewards[ids == ids[0]] = draw(st.floats(-1e3, 1e3))
    return rewards, ids


@st.composite
def masks(draw: st.DrawFn, max_tokens: int = 6) -> Tensor:
    """Holes, padding on either side, empty rows, single tokens, batches without a token."""
    tokens = draw(st.integers(1, max_tokens))
    row = st.one_of(
        st.lists(st.booleans(), min_size=tokens, max_size=tokens),
        st.integers(0, tokens).map(lambda length: [t < length for t in range(tokens)]),
    )
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=5)))


class Tokens(NamedTuple):
    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    """Log-probabilities that differ by anything between nothing and +-200 nats, and advantages of any sign and 0."""
    mask = draw(masks())
    rollouts, length = mask.shape
    differences = st.one_of(
        st.sampled_from([0.0, 200.0, -200.0, 20.0, 90.0, -100.0]), st.floats(-1, 1, allow_subnormal=False)
    )
    count = rollouts * length
    difference = torch.tensor(draw(st.lists(differences, min_size=count, max_size=count)), dtype=torch.float64)
    logprobs = -noise(draw(SEEDS), rollouts, length).abs()
    advantages = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.integers(-500, 500).map(lambda n: n / 100))
    drawn = draw(st.lists(advantages, min_size=rollouts, max_size=rollouts))
    return Tokens(logprobs, logprobs - difference.view(mask.shape), torch.tensor(drawn, dtype=torch.float64), mask)
