"""A reward for being like the group's other correct rollouts."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32
from clipo_ops._typing import require, shaped

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
    r"""A penalty for correct rollouts that are unlike the other correct ones of their group.

    $$r_i = \lambda \Big(t_i - \max_{j \in C_g} t_j\Big), \quad
    t_i = \frac{1}{|C_g| - 1} \sum_{p \in C_g \setminus i} e^{-d_{ip} / (b\, \bar d_g)}, \quad
    d_{ip} = \frac{1}{S} \sum_{s=1}^{S} (1 - \cos(h_{is}, h_{ps}))$$

    with $C_g$ the correct rollouts of the group and $\bar d_g$ the mean distance of its pairs. Dividing by $\bar d_g$
    makes the scale of the distances irrelevant; in many models all of them are near 0.

    $t_i$ says how typical a rollout is: of four equal rollouts and an outlier, the four get 0 and the outlier loses
    most. It needs no incorrect rollout, so it also applies to all-correct groups; with only two correct rollouts it is
    zero. Unlike an InfoNCE loss it depends on the level of an anchor's distances, not only on their differences, and it
    samples nothing.

    It trusts the majority: where most correct rollouts share a mistake, it teaches that mistake, and where a prompt has
    several good solutions, it favours the most common one.

    Args:
        states: $h$, one vector for each of $S$ steps of a rollout, or just one; zeros for a step that it lacks: the
            distance is 1 where one of two rollouts has a step, and 0 where neither has.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        weight: $\lambda$, at least 0: the most that a rollout can lose.
        bandwidth: $b$, above 0: the smaller it is, the closer another rollout has to be to count.
        gate: If given, a number in (0, 1): the reward is $-\lambda$ where $t_i$ is below that share of the largest, and
            0 elsewhere.

    Returns:
        Rewards in $[-\lambda, 0]$, detached, of the states' dtype; 0 for incorrect rollouts, and where fewer than three
        are correct.

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
    correct = layout.gather(success) & layout.valid
    slot = torch.arange(correct.shape[1], device=correct.device)
    pairs = correct.unsqueeze(2) & correct.unsqueeze(1) & (slot.unsqueeze(1) != slot)
    apart = torch.where(pairs, _step_distances(layout.gather(at_least_float32(states.detach()))), 0)
    scale = apart.sum((1, 2), keepdim=True) / pairs.sum((1, 2), keepdim=True).clamp(min=1)
    near = torch.where(pairs, torch.exp(-apart / (bandwidth * scale + _EPS)), 0)
    typical = near.sum(2) / pairs.sum(2).clamp(min=1)
    best = typical.amax(1, keepdim=True)
    below = typical - best if gate is None else 0 - (typical < gate * best).to(typical.dtype)
    rewards = torch.where(correct, weight * below, 0)
    return layout.scatter(rewards).to(states.dtype)


def _step_distances(states: Tensor) -> Float[Tensor, "groups slots slots"]:
    """The mean over steps of 1 - cosine: 1 for a step that one of two lacks, 0 for one that both lack."""
    present = (states != 0).any(-1).to(states.dtype)  # groups, slots, steps
    unit = normalize(states, dim=-1)
    with torch.autocast(states.device.type, enabled=False):
        cosines = torch.einsum("gish,gjsh->gij", unit, unit)
        both = torch.einsum("gis,gjs->gij", present, present)
    count = present.sum(-1)
    either = count.unsqueeze(2) + count.unsqueeze(1) - both
    return (either - cosines).clamp(min=0) / states.shape[2]
