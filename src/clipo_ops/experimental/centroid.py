"""A reward for being near a robust centre of the group's hidden states."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped

_EPS = 1e-5  # distances that differ by less are equal but for rounding


@shaped
def latent_grpo_reward(
    states: Float[Tensor, "rollouts hidden"],
    groups: Groups,
    *,
    bandwidth: float,
    iterations: int,
) -> Float[Tensor, " rollouts"]:
    r"""Latent-GRPO: 1 for the rollout nearest to a robust centre of its group's states, 0 for the farthest.

    $$r_i = \frac{\max_j d_j - d_i}{\max_j d_j - \min_j d_j}, \quad d_i = \lVert z_i - c \rVert, \quad
    c \leftarrow \frac{\sum_i w_i z_i}{\sum_i w_i}, \quad w_i = e^{-d_i^2 / 2 \sigma^2}, \quad
    z_i = \frac{h_i}{\lVert h_i \rVert}$$

    The centre begins as the mean and moves `iterations` times; rollouts far from it lose their weight in it.

    It needs no verdict: the paper takes it in place of the outcome. It rewards agreement, whatever is agreed on.

    Args:
        states: $h$, the last layer's state at the response's last token, as from `last_token_pool`; zeros where there
            is none: the rollout then takes no part.
        groups: Group ids or a `GroupLayout`.
        bandwidth: $\sigma$, above 0, in units of the distance between vectors of length one, at most 2.
        iterations: How often the centre is estimated anew, at least 0.

    Returns:
        Rewards in [0, 1], detached, of the states' dtype; 0 for a rollout without a state, and for all of a group whose
        distances to the centre are equal.

    Raises:
        ValueError: `bandwidth` not above 0, `iterations` below 0; `groups` for another number of rollouts.

    Source:
        Latent-GRPO (iterative robust centroid estimation, arXiv 2601.08427), as its abstract and reviews of it describe
        it: spherical projection, Gaussian weights, negative distance, min-max scaling in the group. Its equations could
        not be read: bandwidth and number of iterations have no default here, and the centre is not projected to the
        sphere.

    Examples:
        >>> states = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> latent_grpo_reward(states, torch.tensor([0, 0, 0, 0]), bandwidth=0.5, iterations=5)
        tensor([1.0000, 1.0000, 0.5425, 0.0000])
    """
    require(bandwidth > 0, "bandwidth", "a number above 0", bandwidth)
    require(iterations >= 0, "iterations", "at least 0", iterations)
    layout = as_layout(groups, len(states))
    states = states.detach()
    counts = layout.gather((states != 0).any(1)) & layout.valid
    unit = normalize(layout.gather(at_least_float32(states)), dim=2)
    center = _weighted_mean(unit, torch.zeros_like(unit.narrow(2, 0, 1)).squeeze(2), counts)
    for _ in range(iterations):
        distances = torch.linalg.vector_norm(unit - center, dim=2)
        center = _weighted_mean(unit, -distances.square() / (2 * bandwidth**2), counts)
    distances = torch.linalg.vector_norm(unit - center, dim=2)
    farthest = torch.where(counts, distances, -torch.inf).amax(1, keepdim=True)
    nearest = torch.where(counts, distances, torch.inf).amin(1, keepdim=True)
    known = counts & (farthest - nearest > _EPS)
    rewards = torch.where(known, (farthest - distances) / torch.where(known, farthest - nearest, 1), 0)
    return rounded(layout.scatter(rewards), states.dtype)


def _weighted_mean(vectors: Tensor, log_weights: Tensor, counts: Tensor) -> Float[Tensor, "groups 1 hidden"]:
    """The mean of the vectors that count, with weights known up to a factor."""
    weights = torch.softmax(torch.where(counts, log_weights, torch.finfo(log_weights.dtype).min), 1)
    return (weights.unsqueeze(2) * torch.where(counts.unsqueeze(2), vectors, 0)).sum(1, keepdim=True)
