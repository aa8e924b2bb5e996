"""Combining rewards, which groups they are informative in, and keeping correct rollouts above incorrect ones."""

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
    r"""Returns a mask of the rollouts in groups whose rewards differ; all others have no group-relative advantage.

    $$m_i = [\min_{j \in g_i} r_j < \max_{j \in g_i} r_j]$$

    Dynamic sampling draws new prompts until enough rollouts are informative. Pass it the verdicts: contrastive rewards
    differ in nearly every group.

    Args:
        rewards: One reward or verdict per rollout; NaN or infinite if it could not be scored.
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
    r"""Returns the weighted sum of several reward signals, as they are or each standardised in its group.

    $$r_i = \sum_k w_k r_{ik} \qquad \text{or} \qquad
    r_i = \sum_k w_k \frac{r_{ik} - \bar r_{g_i k}}{\sigma_{g_i k} + \epsilon}$$

    In a plain sum the signal with the largest spread decides. With `"gdpo"` each signal counts by its weight alone.

    Standardised signals must agree on what is good for every rollout that has them. An incorrect rollout's contrastive
    reward is 0, the best there is, so standardising it over the whole group works against the outcome: with four
    perfectly clustered correct rollouts and four incorrect ones, all eight rewards are within 1e-5 of 0. Pass NaN for
    the contrastive rewards of incorrect rollouts (see the example). It then ranks the correct rollouts among themselves
    and leaves their mean as it was: +0.935, and -0.935 for the incorrect ones.

    Args:
        rewards: The signals of each rollout. NaN where a signal is missing: it is in no baseline and adds nothing.
        groups: Group ids or a `GroupLayout`; `"sum"` does not need them.
        weights: $w_k$, one number per signal; 1 each by default.
        method: `"sum"` or `"gdpo"`, the two formulas above, with sample deviations (n - 1).
        eps: $\epsilon$, at least 0, in units of each signal.

    Returns:
        Rewards of the signals' dtype; NaN for a rollout without any signal.

    Raises:
        ValueError: Unknown `method`; not one weight per signal; `eps` below 0; `groups` for another number of rollouts.

    Source:
        GDPO (arXiv 2601.05242, eqs. 4 and 5). NaN for incorrect rollouts is ours.

    Examples:
        >>> rewards = torch.tensor([[1.0, 30.0], [0.0, 10.0], [0.0, 20.0]])
        >>> combine_rewards(rewards, torch.tensor([0, 0, 0]), weights=(1, 0.1))
        tensor([4., 1., 2.])
        >>> combine_rewards(rewards, torch.tensor([0, 0, 0]), method="gdpo")
        tensor([ 2.1547, -1.5773, -0.5773])

        An outcome and a contrastive reward:

        >>> success, contrastive = torch.tensor([True, True, False, False]), torch.tensor([-0.1, -0.3, 0.0, 0.0])
        >>> contrastive = torch.where(success, contrastive, torch.nan)
        >>> combine_rewards(torch.stack([success.float(), contrastive], 1), torch.zeros(4).int(), method="gdpo")
        tensor([ 1.5731,  0.1589, -0.8660, -0.8660])
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
    r"""Returns rewards in which no correct rollout is below its group's best incorrect one plus a margin.

    $$r'_i = \max(r_i,\; \max_{j \in g_i \text{ incorrect}} r_j + \delta) \quad \text{for correct } i$$

    Length penalties and contrastive rewards then reorder correct rollouts among themselves, never across the verdict. A
    correct rollout may still be below the mean of its group, and so have a negative advantage (see `negative_credit`).
    In a group of $n$ rollouts of which at least one is incorrect, with outcomes in {0, 1} and all other rewards added
    up in $[r_{\min}, 0]$, that cannot happen if

    $$-r_{\min} \le \frac{1}{n - 1}.$$

    The sum of all penalties counts: to a contrastive floor of -0.1 an overlong penalty of up to 1 adds 1. In an
    all-correct group no bound helps, since any difference puts a rollout below the mean: [1, 1, 0.8]. Such groups
    get contrastive rewards in scope `"cross"`, and penalties in any scope.

    Args:
        rewards: One reward per rollout, all signals added up; NaN or infinite if it could not be scored.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        margin: $\delta$, at least 0, in units of the reward.

    Returns:
        Rewards of the same dtype; those of incorrect rollouts, and of groups without one, are unchanged.

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
    raised = torch.maximum(values, _best_incorrect(values, success, groups) + margin)
    return rounded(torch.where(success & values.isfinite(), raised, values), rewards.dtype)


@shaped
def reward_inversions(
    rewards: Float[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
) -> Bool[Tensor, " rollouts"]:
    r"""Returns a mask of the correct rollouts whose reward is below that of an incorrect one of their group.

    $$m_i = [i \text{ correct},\; r_i < \max_{j \in g_i \text{ incorrect}} r_j]$$

    Args:
        rewards: One reward per rollout, all signals added up; NaN or infinite if it could not be scored.
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
    return success & values.isfinite() & (values < _best_incorrect(values, success, groups))


def _best_incorrect(values: Tensor, success: Tensor, groups: Groups) -> Tensor:
    """The largest reward of the incorrect rollouts of each rollout's group; minus infinity without one."""
    excluded = success | values.isfinite().logical_not()
    return group_reducer(groups, len(values))(torch.where(excluded, -torch.inf, values), "amax")
