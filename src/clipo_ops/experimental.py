"""Rewards that the authors' study of CLIPO found to work: unlike the rest, they may change in any release.

Import them as `from clipo_ops.experimental import consensus_reward`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipo_ops._groups import Groups, as_layout
from clipo_ops._kernels.gram import success_pairs
from clipo_ops._numerics import at_least_float32
from clipo_ops._typing import require, shaped

__all__ = ["consensus_reward"]


_EPS = 1e-5  # distances below it are rounding: states of one text that were computed in different batches


@shaped
def consensus_reward(
    states: Float[Tensor, "rollouts steps hidden"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    weight: float = 0.5,
    bandwidth: float = 1.0,
    gate: float | None = None,
) -> Float[Tensor, " rollouts"]:
    r"""Takes reward off correct rollouts that are unlike the other correct ones of their group.

    $$r_i = \lambda \Big(t_i - \max_{j \in C_g} t_j\Big), \quad
    t_i = \frac{1}{|C_g| - 1} \sum_{p \in C_g \setminus i} e^{-d_{ip} / (b\, \bar d_g)}, \quad
    d_{ip} = \frac{1}{S} \sum_{s=1}^{S} (1 - \cos(h_{is}, h_{ps}))$$

    with $C_g$ the correct rollouts of the group and $\bar d_g$ the mean distance of its pairs, so that the scale of the
    distances, which are all near 0 where a model's states are all near each other, does not matter. $t_i$ is how
    typical a rollout is: of four that are one and one outlier, the four get 0 and the outlier loses most. It needs no
    wrong rollout, and so speaks where all are right; of two, neither is the outlier. Unlike an InfoNCE loss it is not
    blind to what an anchor's distances have in common, and draws nothing.

    It trusts the majority: where most correct rollouts go wrong in the same way, it teaches that way, and where a
    prompt has several good ways, it favours the most common.

    Args:
        states: $h$, one vector for each of $S$ steps of a rollout, or just one; zeros for a step that it does not have:
            the distance is 1 where one of two rollouts has a step, and 0 where neither has.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        weight: $\lambda$, at least 0: the most that a rollout can lose.
        bandwidth: $b$, above 0: the smaller, the closer another rollout has to be to count.
        gate: With a number in (0, 1), $-\lambda$ where $t_i$ is below that share of the largest, and 0 elsewhere.

    Returns:
        Rewards in $[-\lambda, 0]$, detached, of the states' dtype; 0 for wrong rollouts, and where fewer than three are
        correct.

    Raises:
        ValueError: `weight` below 0, `bandwidth` not above 0, `gate` not in (0, 1); `groups` for another number of
            rollouts.

    Source:
        This project's study of CLIPO (arXiv 2603.10101); self-consistency (arXiv 2203.11171) of states, not answers.

    Examples:
        >>> states = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.6, 0.8]], [[0.0, 1.0]]])
        >>> consensus_reward(states, torch.tensor([True, True, True, True, False]), torch.tensor([0, 0, 0, 0, 0]))
        tensor([ 0.0000,  0.0000,  0.0000, -0.2882,  0.0000])
    """
    require(weight >= 0, "weight", "a number of at least 0", weight)
    require(bandwidth > 0, "bandwidth", "a number above 0", bandwidth)
    require(gate is None or 0 < gate < 1, "gate", "None or a number in (0, 1)", gate)
    layout = as_layout(groups, len(success))
    right, _, others = success_pairs(success, layout)
    pairs = others & right.unsqueeze(2) & right.unsqueeze(1)
    apart = torch.where(pairs, _step_distances(layout.gather(at_least_float32(states.detach()))), 0)
    scale = apart.sum((1, 2), keepdim=True) / pairs.sum((1, 2), keepdim=True).clamp(min=1)
    near = torch.where(pairs, torch.exp(-apart / (bandwidth * scale + _EPS)), 0)
    typical = near.sum(2) / pairs.sum(2).clamp(min=1)
    best = typical.amax(1, keepdim=True)
    below = typical - best if gate is None else 0 - (typical < gate * best).to(typical.dtype)
    rewards = torch.where(right, weight * below, 0)
    return layout.scatter(rewards).to(states.dtype)


def _step_distances(states: Tensor) -> Float[Tensor, "groups slots slots"]:
    """Mean over steps of 1 - cosine; a step that one of two lacks is at distance 1, one that both lack at 0."""
    present = (states != 0).any(-1).to(states.dtype)  # groups, slots, steps
    unit = normalize(states, dim=-1)
    with torch.autocast(states.device.type, enabled=False):
        cosines = torch.einsum("gish,gjsh->gij", unit, unit)
        both = torch.einsum("gis,gjs->gij", present, present)
    count = present.sum(-1)
    either = count.unsqueeze(2) + count.unsqueeze(1) - both
    return (either - cosines).clamp(min=0) / states.shape[2]
