"""Several rewards into one, what they teach, and whether they keep correct rollouts above incorrect ones."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._groups import Groups, group_reducer, group_zscores
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped

CombinationMethod = Literal["sum", "gdpo"]


@shaped
def informative_groups(
    rewards: Float[Tensor, " rollouts"] | Bool[Tensor, " rollouts"],
    groups: Groups,
) -> Bool[Tensor, " rollouts"]:
    r"""Which rollouts are in a group whose rewards differ: the others have no group-relative advantage.

    $$m_i = [\min_{j \in g_i} r_j < \max_{j \in g_i} r_j]$$

    Dynamic sampling draws new prompts until enough rollouts are informative. Give it the verdicts: a contrastive reward
    differs in nearly every group.

    Args:
        rewards: One reward or verdict per rollout; NaN or infinite for one that could not be scored, which is left out.
        groups: Group ids or a `GroupLayout`.

    Returns:
        True for the scored rollouts of groups with two different rewards.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        DAPO (arXiv 2503.14476, eq. 11): with verdicts, 0 < correct rollouts < group size.

    Examples:
        >>> informative_groups(torch.tensor([True, False, True, True]), torch.tensor([0, 0, 1, 1]))
        tensor([ True,  True, False, False])
    """
    values = rewards.float() if rewards.dtype == torch.bool else at_least_float32(rewards)
    known = values.isfinite()
    over_group = group_reducer(groups, len(values))
    largest = over_group(torch.where(known, values, -torch.inf), "amax")
    smallest = -over_group(torch.where(known, -values, -torch.inf), "amax")
    return known & (smallest < largest)


@shaped
def combine_rewards(
    rewards: Float[Tensor, "rollouts signals"],
    groups: Groups,
    *,
    weights: Sequence[float] | None = None,
    method: CombinationMethod = "sum",
    eps: float = 1e-6,
) -> Float[Tensor, " rollouts"]:
    r"""Several reward signals as one: their weighted sum, as they are or each in units of its own spread.

    $$r_i = \sum_k w_k r_{ik} \qquad \text{or} \qquad
    r_i = \sum_k w_k \frac{r_{ik} - \bar r_{g_i k}}{\sigma_{g_i k} + \epsilon}$$

    In a plain sum the signal with the largest spread decides. With `"gdpo"` each counts by its weight alone, in a group
    where they differ in scale or difficulty as in any other: a natural way to mix outcome and contrastive rewards.

    Args:
        rewards: The signals of each rollout. NaN where a signal is not given: it is in no baseline and adds nothing.
        groups: Group ids or a `GroupLayout`; `"sum"` does not need them.
        weights: $w_k$, one number per signal; 1 each when not given.
        method: `"sum"` or `"gdpo"`, the two formulas above, with sample deviations (n - 1).
        eps: $\epsilon$, at least 0, in units of each signal.

    Returns:
        Rewards of the signals' dtype; NaN, for a rollout that could not be scored, where no signal is given.

    Raises:
        ValueError: Unknown `method`; not one weight per signal; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GDPO (arXiv 2601.05242, eqs. 4 and 5).

    Examples:
        >>> rewards = torch.tensor([[1.0, 30.0], [0.0, 10.0], [0.0, 20.0]])
        >>> combine_rewards(rewards, torch.tensor([0, 0, 0]), weights=(1, 0.1))
        tensor([4., 1., 2.])
        >>> combine_rewards(rewards, torch.tensor([0, 0, 0]), method="gdpo")
        tensor([ 2.1547, -1.5773, -0.5773])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    values = at_least_float32(rewards)
    given = values.isfinite()
    if method == "gdpo":
        columns = [group_zscores(column, groups, eps) for column in values.unbind(1)]
    else:
        columns = list(torch.where(given, values, 0).unbind(1))
    factors = [1.0] * len(columns) if weights is None else weights
    require(len(factors) == len(columns), "weights", "one number per signal", weights)
    total = sum((factor * column for factor, column in zip(factors, columns, strict=True)), values.new_zeros(()))
    return rounded(torch.where(given.any(1), total, torch.nan), rewards.dtype)


@shaped
def guarded_rewards(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    margin: float = 0.0,
) -> Float[Tensor, " rollouts"]:
    r"""Raises a correct rollout's reward to at least that of its group's best wrong one, plus a margin.

    $$r'_i = \max(r_i,\; \max_{j \in g_i \text{ wrong}} r_j + \delta) \quad \text{for correct } i$$

    Length penalties and similarity rewards then reorder correct rollouts among themselves, never across the verdict. A
    correct rollout may still be below the MEAN of a group that is nearly all correct (see `negative_credit`). With
    outcome rewards in {0, 1} and bonuses for correct rollouts in $[r_{\min}, 0]$, that is ruled out in groups of $n$ by

    $$-r_{\min} \le \frac{1}{n - 1},$$

    so choose `contrastive_reward`'s floor, or its weight, accordingly.

    Args:
        rewards: One reward per rollout, all signals added up; NaN or infinite for one that could not be scored, which
            stays as it is.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        margin: $\delta$, at least 0, in units of the reward.

    Returns:
        Rewards of the same dtype; those of wrong rollouts, and of groups without one, as they were.

    Raises:
        ValueError: `margin` below 0; `groups` for another number of rollouts.

    Source:
        Ours; the CLIPO reward (arXiv 2603.10101) has no such guard.

    Examples:
        >>> rewards, success = torch.tensor([0.2, 0.9, 0.3]), torch.tensor([True, True, False])
        >>> guarded_rewards(rewards, success, torch.tensor([0, 0, 0]), margin=0.1)
        tensor([0.4000, 0.9000, 0.3000])
    """
    require(margin >= 0, "margin", "a number of at least 0", margin)
    values = at_least_float32(rewards)
    raised = torch.maximum(values, _best_wrong(values, success, groups) + margin)
    return rounded(torch.where(success & values.isfinite(), raised, values), rewards.dtype)


@shaped
def reward_inversions(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> Bool[Tensor, " rollouts"]:
    r"""Which correct rollouts have a reward below that of a wrong one of their group.

    $$m_i = [i \text{ correct},\; r_i < \max_{j \in g_i \text{ wrong}} r_j]$$

    Args:
        rewards: One reward per rollout, all signals added up; NaN or infinite for one without a score, which is
            left out.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        True where `guarded_rewards` raises the reward, at margin 0.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        Ours; see `guarded_rewards`.

    Examples:
        >>> rewards, success = torch.tensor([0.2, 0.9, 0.3]), torch.tensor([True, True, False])
        >>> reward_inversions(rewards, success, torch.tensor([0, 0, 0]))
        tensor([ True, False, False])
    """
    values = at_least_float32(rewards)
    return success & values.isfinite() & (values < _best_wrong(values, success, groups))


def _best_wrong(values: Tensor, success: Tensor, groups: Groups) -> Tensor:
    """The largest reward of the wrong rollouts of each rollout's group; minus infinity without one."""
    excluded = success | values.isfinite().logical_not()
    return group_reducer(groups, len(values))(torch.where(excluded, -torch.inf, values), "amax")
