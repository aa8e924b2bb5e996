"""Advantages per step of an agent."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, Moments, group_moments, group_numbers, standardized
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._returns.scan import discounted_sums, scored
from clipo_ops._typing import require, shaped


@shaped
def gigpo_advantages(
    step_rewards: Float[Tensor, "rollouts steps"],
    states: Int[Tensor, "rollouts steps"],
    mask: Bool[Tensor, "rollouts steps"],
    groups: Groups,
    *,
    discount: float = 0.95,
    step_weight: float = 1.0,
    scale: Literal["group", "none"] = "none",
    eps: float = 1e-6,
) -> Float[Tensor, "rollouts steps"]:
    r"""Group-in-group advantages: an episode over its prompt's episodes, plus each step over steps from the same state.

    $$A_{it} = \frac{R_i - \bar R_{g_i}}{F_{g_i}} + \omega\, \frac{G_{it} - \bar G_{h_{it}}}{F_{h_{it}}}, \qquad
    R_i = \sum_t r_{it}, \qquad G_{it} = r_{it} + \gamma G_{i,t+1}$$

    $h_{it}$ holds the steps of the group's rollouts that start from the same state as step $t$ of rollout $i$. $F$ is 1
    or a sample deviation plus $\epsilon$. A state that is met once adds nothing.

    Args:
        step_rewards: $r$, the environment's reward for each step. A rollout with NaN at a valid step, or without a
            valid step, is not known: it is in no baseline and has advantage 0.
        states: Any integers, such as hashes of observations; equal ones in a group are the same state.
        mask: True at the steps that were taken.
        groups: Group ids or a layout.
        discount: $\gamma$, in [0, 1].
        step_weight: $\omega$, at least 0.
        scale: $F$: `"none"` is 1; `"group"` is the deviation within $g_i$, or $h_{it}$.
        eps: $\epsilon$, at least 0.

    Returns:
        One advantage per step, of the rewards' dtype; 0 under a False mask.

    Raises:
        ValueError: Unknown `scale`; `discount` outside [0, 1]; `step_weight` or `eps` below 0; `groups` for another
            number of rollouts.

    Source:
        GiGPO (arXiv 2505.10978, eqs. 3 and 5 to 8, as cited in the authors' `core_gigpo.py`, whose defaults these are).
        The authors' code averages the episodes' rewards over all steps by default; here each episode counts once.

    Examples:
        >>> rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> states, mask = torch.tensor([[7, 8], [7, 9]]), torch.ones(2, 2).bool()
        >>> gigpo_advantages(rewards, states, mask, torch.tensor([0, 0]), discount=1.0)
        tensor([[ 1.0000,  0.5000],
                [-1.0000, -0.5000]])
    """
    require(0 <= discount <= 1, "discount", "a number in [0, 1]", discount)
    require(step_weight >= 0, "step_weight", "a number of at least 0", step_weight)
    require(eps >= 0, "eps", "a number of at least 0", eps)

    def relative(moments: Moments) -> Tensor:
        return moments.centered if scale == "none" else standardized(moments.centered, moments.variance, eps)

    counts = mask & scored(step_rewards, mask)
    rewards = torch.where(counts, at_least_float32(step_rewards), 0)
    episode_rewards = torch.where(counts.any(1), rewards.sum(1), torch.nan)
    step_returns = torch.where(counts, discounted_sums(rewards, counts, discount), torch.nan)
    episode = relative(group_moments(episode_rewards, groups)).unsqueeze(1)
    step = relative(group_moments(step_returns.flatten(), _state_groups(states, groups))).view_as(rewards)
    return rounded(torch.where(counts, episode + step_weight * step, 0), step_rewards.dtype)


def _state_groups(states: Tensor, groups: Groups) -> Int[Tensor, " rollouts_x_steps"]:
    """One id for each pair of a group and a state, step by step."""
    prompt = group_numbers(groups).unsqueeze(1).expand_as(states).flatten()
    return prompt * states.numel() + group_numbers(states.flatten())
