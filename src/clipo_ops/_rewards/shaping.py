"""Rewards from lengths, repetitions and verdicts, and rewards per token."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, group_reducer
from clipo_ops._masking import sequence_lengths
from clipo_ops._typing import require, shaped


@shaped
def overlong_penalty(
    lengths: Int[Tensor, " rollouts"],
    *,
    max_length: int,
    buffer: int,
    factor: float = 1.0,
) -> Float[Tensor, " rollouts"]:
    r"""Returns a soft penalty for long responses, linear over a buffer before the limit.

    $$r_i = -\lambda \operatorname{clip}\left(\frac{l_i - (l_{\max} - b)}{b},\; 0,\; 1\right)$$

    Args:
        lengths: $l$, the valid tokens of each response.
        max_length: $l_{\max}$, the length from which on the penalty is $\lambda$. At least 1.
        buffer: $b$, from 1 to `max_length`, in tokens.
        factor: $\lambda$, at least 0.

    Returns:
        Float32 rewards in [-factor, 0]. Add them to the outcome reward.

    Raises:
        ValueError: `max_length` below 1; `buffer` not from 1 to `max_length`; `factor` below 0.

    Source:
        DAPO (arXiv 2503.14476, eq. 13): maximum 20480, buffer 4096, factor 1.

    Examples:
        >>> overlong_penalty(torch.tensor([10, 16, 18, 20, 30]), max_length=20, buffer=4)
        tensor([ 0.0000,  0.0000, -0.5000, -1.0000, -1.0000])
    """
    require(max_length >= 1, "max_length", "at least 1", max_length)
    require(1 <= buffer <= max_length, "buffer", "a number from 1 to max_length", buffer)
    require(factor >= 0, "factor", "a number of at least 0", factor)
    excess = lengths.long() - (max_length - buffer)
    return (excess.float() / buffer).clamp(0, 1) * -factor + 0.0  # + 0.0 turns -0.0 into 0.0


@shaped
def cosine_length_reward(
    lengths: Int[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    *,
    max_length: int,
    correct_short: float = 1.0,
    correct_long: float = 0.5,
    incorrect_short: float = -1.0,
    incorrect_long: float = -0.5,
    exceeded: float | None = None,
) -> Float[Tensor, " rollouts"]:
    r"""Returns an outcome reward that follows a cosine from short to long responses.

    $$r_i = v_{\text{long}} + \frac{v_{\text{short}} - v_{\text{long}}}{2}
    \left(1 + \cos \frac{\pi \min(l_i, l_{\max})}{l_{\max}}\right)$$

    with one pair of values for correct and one for incorrect rollouts. By default a correct response earns more if it
    is short, an incorrect one if it is long. It replaces the outcome reward.

    Args:
        lengths: $l$, the valid tokens of each response.
        success: True for correct rollouts.
        max_length: $l_{\max}$, at least 1. Longer responses get the value of this length.
        correct_short: $v_{\text{short}}$ of correct rollouts, the limit at length 0.
        correct_long: $v_{\text{long}}$ of correct rollouts, at `max_length`.
        incorrect_short: $v_{\text{short}}$ of incorrect rollouts.
        incorrect_long: $v_{\text{long}}$ of incorrect rollouts.
        exceeded: The reward from `max_length` on, whatever the verdict; by default there is no such exception.

    Returns:
        Float32 rewards.

    Raises:
        ValueError: `max_length` below 1.

    Source:
        Demystifying Long Chain-of-Thought Reasoning in LLMs (arXiv 2502.03373). Formula and `exceeded` as in its code
        (`CosineScaledSparseReward`); default values as in TRL's `get_cosine_scaled_reward`, whose cosine rises again
        beyond `max_length`.

    Examples:
        >>> lengths, success = torch.tensor([0, 50, 100, 50]), torch.tensor([True, True, True, False])
        >>> cosine_length_reward(lengths, success, max_length=100)
        tensor([ 1.0000,  0.7500,  0.5000, -0.7500])
        >>> cosine_length_reward(lengths, success, max_length=100, exceeded=-1.0)
        tensor([ 1.0000,  0.7500, -1.0000, -0.7500])
    """
    require(max_length >= 1, "max_length", "at least 1", max_length)
    progress = lengths.clamp(max=max_length).float() / max_length
    share = (1 + (math.pi * progress).cos()) / 2
    correct = correct_long + (correct_short - correct_long) * share
    incorrect = incorrect_long + (incorrect_short - incorrect_long) * share
    rewards = torch.where(success, correct, incorrect)
    return rewards if exceeded is None else torch.where(lengths >= max_length, exceeded, rewards)


@shaped
def pass_rate_length_penalty(
    lengths: Int[Tensor, " rollouts"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    *,
    factor: float = 0.25,
) -> Float[Tensor, " rollouts"]:
    r"""Returns a penalty for length that grows with the share of a group's rollouts that are correct.

    $$r_i = -\lambda\, p_{g_i} \frac{l_i}{\max_{j \in g_i} l_j}, \qquad
    p_g = \frac{\#\{j \in g : j \text{ correct}\}}{\#g}$$

    Prompts that are solved reliably get the strongest pressure to be short, prompts that are never solved get none.
    The penalty is relative to the group's longest response, for correct and incorrect rollouts alike.

    Args:
        lengths: $l$, the valid tokens of each response.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        factor: $\lambda$, at least 0.

    Returns:
        Float32 rewards in [-factor, 0]. Add them to the outcome reward.

    Raises:
        ValueError: `factor` below 0; `groups` for another number of rollouts.

    Source:
        Formula and factor as in prime-rl's GRPO (its `linear` length penalty, for the response's tokens). Adaptive
        Length Penalty (arXiv 2506.05256, not read) also scales by the solve rate.

    Examples:
        >>> lengths, success = torch.tensor([10, 20, 40, 10]), torch.tensor([True, True, False, False])
        >>> pass_rate_length_penalty(lengths, success, torch.tensor([0, 0, 0, 1]), factor=0.3)
        tensor([-0.0500, -0.1000, -0.2000,  0.0000])
    """
    require(factor >= 0, "factor", "a number of at least 0", factor)
    over_group = group_reducer(groups, len(lengths))
    pass_rate = over_group(success.float(), "sum") / over_group(torch.ones_like(success).float(), "sum")
    longest = over_group(lengths.float(), "amax").clamp(min=1)
    return -factor * pass_rate * (lengths.float() / longest) + 0.0


@shaped
def repetition_penalty(
    token_ids: Int[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    ngram_size: int = 3,
    factor: float = 1.0,
) -> Float[Tensor, " rollouts"]:
    r"""Returns a penalty for the share of a response's n-grams that repeat an earlier one.

    $$r_i = -\lambda \left(1 - \frac{\#\text{ distinct } n\text{-grams of } y_i}{\#\; n\text{-grams of } y_i}\right)$$

    Args:
        token_ids: $y$, the responses' tokens.
        mask: True where a token counts; n-grams run over the valid tokens, across holes.
        ngram_size: $n$, at least 1.
        factor: $\lambda$, at least 0.

    Returns:
        Float32 rewards in (-factor, 0]; 0 for responses of fewer than $n$ tokens.

    Raises:
        ValueError: `ngram_size` below 1; `factor` below 0.

    Source:
        Demystifying Long Chain-of-Thought Reasoning in LLMs (arXiv 2502.03373), whose code counts n-grams of words
        (`get_repetition_penalty`). Formula over token ids as in TRL's `get_repetition_penalty_reward`.

    Examples:
        >>> token_ids = torch.tensor([[1, 2, 3, 4, 0], [5, 5, 5, 5, 5]])
        >>> mask = torch.tensor([[True, True, True, True, False], [True, True, True, True, True]])
        >>> repetition_penalty(token_ids, mask, ngram_size=2)
        tensor([ 0.0000, -0.7500])
    """
    require(ngram_size >= 1, "ngram_size", "at least 1", ngram_size)
    require(factor >= 0, "factor", "a number of at least 0", factor)
    width = mask.shape[1]
    valid_first = mask.logical_not().long().argsort(stable=True, dim=1)
    tokens = _dense_ranks(token_ids.long().gather(1, valid_first))
    ngrams = tokens  # the n-gram that begins at each token, by its rank
    for offset in range(1, ngram_size):
        ngrams = _dense_ranks(ngrams * width + tokens.roll(-offset, 1))
    is_ngram = torch.arange(width, device=mask.device) + ngram_size <= sequence_lengths(mask).unsqueeze(1)
    ordered = torch.where(is_ngram, ngrams, -1).sort(1).values
    repeats = (ordered >= 0) & _starts(ordered).logical_not()
    return -factor * repeats.float().sum(1) / is_ngram.float().sum(1).clamp(min=1) + 0.0


@shaped
def token_level_rewards(
    rewards: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts tokens"]:
    r"""Returns rewards per token: each rollout's reward at its last valid token, and 0 at all others.

    $$r_{it} = r_i [t = t_i], \qquad t_i = \max\{t : m_{it}\}$$

    Args:
        rewards: One reward per rollout.
        mask: True where a token counts; holes and padding on either side are allowed.

    Returns:
        Rewards of the same dtype; all 0 for a rollout without a valid token.

    Source:
        PPO for language models, such as InstructGPT (arXiv 2203.02155, section 3.5); KL penalties are added per token.

    Examples:
        >>> mask = torch.tensor([[True, True, False], [False, True, True]])
        >>> token_level_rewards(torch.tensor([1.0, 2.0]), mask)
        tensor([[0., 1., 0.],
                [0., 0., 2.]])
    """
    valid_from_here = mask.flip(1).cumsum(1).flip(1)
    return torch.where(mask & (valid_from_here == 1), rewards.unsqueeze(1), 0)


def _dense_ranks(values: Tensor) -> Tensor:
    """The rank of each value among the distinct values of its row, from 0."""
    ordered, order = values.sort(1)
    rank_in_order = _starts(ordered).cumsum(1) - 1
    return rank_in_order.gather(1, order.argsort(1))  # by the inverse permutation


def _starts(ordered: Tensor) -> Tensor:
    """True where a sorted row holds a value for the first time."""
    is_first = torch.arange(ordered.shape[1], device=ordered.device) == 0
    return is_first | (ordered != ordered.roll(1, 1))
