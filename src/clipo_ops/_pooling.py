"""Pooling of a rollout's hidden states to one vector, and centring of vectors by group."""

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped


@shaped
def mean_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns the mean of each rollout's hidden states over its response tokens.

    $$h_i = \frac{\sum_t m_{it} h_{it}}{\max(1, \sum_t m_{it})}$$

    The sum is taken in at least float32. A running sum in bfloat16 stops growing once its terms are small next to it:
    for 1024 tokens whose units have mean 1 it is 19 % off at a standard deviation of 1 and 50 % off at one of 0.1, so
    that length leaks into the embedding. Where units have mean 0 it is 4 % off.

    Args:
        hidden: Hidden states, such as a model's last layer.
        mask: True at the tokens to average.

    Returns:
        One vector per rollout, of the hidden states' dtype; zeros, without gradient, for a rollout with no token.

    Source:
        CLIPO (arXiv 2603.10101): the embedding is taken from the mean of the last layer over response tokens.

    Examples:
        >>> hidden = torch.tensor([[[1.0, 4.0], [3.0, 8.0], [9.0, 9.0]]])
        >>> mean_pool(hidden, torch.tensor([[True, True, False]]))
        tensor([[2., 6.]])
    """
    states = torch.where(rearrange(mask, "rollouts tokens -> rollouts tokens 1"), at_least_float32(hidden), 0)
    total = reduce(states, "rollouts tokens hidden -> rollouts hidden", "sum")
    return rounded(total / mask.sum(1, keepdim=True).clamp(min=1), hidden.dtype)


@shaped
def last_token_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns the hidden state of each rollout's last response token.

    $$h_i = h_{i,t_i}, \qquad t_i = \max\{t : m_{it}\}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        mask: True at the response tokens; holes and padding on either side are allowed.

    Returns:
        One vector per rollout, of the hidden states' dtype; zeros, without gradient, for a rollout with no token.

    Source:
        The usual sequence embedding of decoder-only models, such as E5-Mistral (arXiv 2401.00368).

    Examples:
        >>> hidden = torch.tensor([[[1.0, 4.0], [3.0, 8.0], [9.0, 9.0]]])
        >>> last_token_pool(hidden, torch.tensor([[True, True, False]]))
        tensor([[3., 8.]])
    """
    if mask.shape[1] == 0:
        return hidden.sum(1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    return _token_at(hidden, torch.where(mask, positions, -1).amax(1))


@shaped
def token_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    positions: Int[Tensor, " rollouts"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns the hidden state at one token of each rollout, such as the one before its answer.

    $$h_i = h_{i,p_i}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        positions: $p$, below `tokens`; negative where a rollout has no such token.

    Returns:
        One vector per rollout, of the hidden states' dtype; zeros, without gradient, for a negative position.

    Source:
        Hidden-Align (arXiv 2606.03234) aligns the token before the answer.

    Examples:
        >>> hidden = torch.tensor([[[1.0, 4.0], [3.0, 8.0]], [[5.0, 6.0], [7.0, 8.0]]])
        >>> token_pool(hidden, torch.tensor([1, -1]))
        tensor([[3., 8.],
                [0., 0.]])
    """
    return hidden.sum(1) if hidden.shape[1] == 0 else _token_at(hidden, positions)


@shaped
def max_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns the largest value of every hidden unit over each rollout's response tokens.

    $$h_{ik} = \max_{t : m_{it}} h_{itk}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        mask: True at the tokens that count.

    Returns:
        One vector per rollout, of the hidden states' dtype; zeros, without gradient, for a rollout with no token.
        Tokens that share a maximum share its gradient.

    Source:
        Max-over-time pooling (Collobert et al., arXiv 1103.0398, section 3.2.2).

    Examples:
        >>> hidden = torch.tensor([[[1.0, 9.0], [3.0, 8.0], [9.0, 9.0]]])
        >>> max_pool(hidden, torch.tensor([[True, True, False]]))
        tensor([[3., 9.]])
    """
    if mask.shape[1] == 0:
        return hidden.sum(1)
    states = torch.where(rearrange(mask, "rollouts tokens -> rollouts tokens 1"), hidden, -torch.inf)
    largest = reduce(states, "rollouts tokens hidden -> rollouts hidden", "max")
    return torch.where(mask.any(1, keepdim=True), largest, 0)


@shaped
def weighted_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    weights: Float[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns the mean of each rollout's hidden states under a weight per token, such as its entropy.

    $$h_i = \frac{\sum_t w_{it} h_{it}}{\sum_t w_{it}}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        weights: $w$, at least 0, on any scale. A weight of 0 masks its token and gets no gradient.

    Returns:
        One vector per rollout, of the hidden states' dtype, summed in at least float32; zeros, without gradient, for a
        rollout whose weights are all 0.

    Source:
        Weighted mean pooling, such as SGPT's by position (arXiv 2202.08904, eq. 2).

    Examples:
        >>> hidden = torch.tensor([[[1.0, 4.0], [3.0, 8.0], [9.0, 9.0]]])
        >>> weighted_pool(hidden, torch.tensor([[3.0, 1.0, 0.0]]))
        tensor([[1.5000, 5.0000]])
    """
    counts = weights > 0
    states = torch.where(rearrange(counts, "rollouts tokens -> rollouts tokens 1"), at_least_float32(hidden), 0)
    positive = torch.where(counts, weights, 0).to(torch.promote_types(weights.dtype, states.dtype))
    total = positive.sum(1, keepdim=True)
    share = positive / torch.where(total > 0, total, 1)
    weighted = rearrange(share, "rollouts tokens -> rollouts tokens 1") * states
    return rounded(reduce(weighted, "rollouts tokens hidden -> rollouts hidden", "sum"), hidden.dtype)


@shaped
def segment_mean_pool(
    hidden: Float[Tensor, "tokens hidden"],
    segment_ids: Int[Tensor, " tokens"],
    *,
    num_segments: int,
) -> Float[Tensor, "rollouts hidden"]:
    r"""Returns `mean_pool` of rollouts that are packed into one sequence.

    $$h_i = \frac{\sum_{t : s_t = i} h_t}{\max(1, \#\{t : s_t = i\})}$$

    Args:
        hidden: Hidden states of all tokens, one after another.
        segment_ids: $s$, the rollout of each token, in any order. Tokens outside [0, num_segments), such as prompts and
            padding at -1, are masked.
        num_segments: The number of rollouts, at least 1.

    Returns:
        One vector per rollout, of the hidden states' dtype, summed in at least float32; zeros, without gradient, for a
        rollout with no token.

    Raises:
        ValueError: `num_segments` below 1.

    Source:
        As `mean_pool`.

    Examples:
        >>> hidden = torch.tensor([[1.0], [3.0], [5.0], [9.0]])
        >>> segment_mean_pool(hidden, torch.tensor([0, 0, 1, -1]), num_segments=2)
        tensor([[2.],
                [5.]])
    """
    require(num_segments >= 1, "num_segments", "at least 1", num_segments)
    inside = (segment_ids >= 0) & (segment_ids < num_segments)
    segment = torch.where(inside, segment_ids, num_segments).long()  # masked tokens have a segment of their own
    inside = rearrange(inside, "tokens -> tokens 1")
    states = torch.where(inside, at_least_float32(hidden), 0)
    total = states.new_zeros(num_segments + 1, hidden.shape[1]).index_add(0, segment, states)
    count = states.new_zeros(num_segments + 1, 1).index_add(0, segment, inside.to(states.dtype))
    return rounded((total / count.clamp(min=1)).narrow(0, 0, num_segments), hidden.dtype)


@shaped
def center_by_group(
    embeddings: Float[Tensor, "rollouts dim"],
    groups: Groups,
) -> Float[Tensor, "rollouts dim"]:
    r"""Returns vectors minus their group's mean.

    $$\tilde z_i = z_i - \bar z_{g_i}$$

    What all rollouts of a prompt share says nothing about how each of them solved it. Applied before
    `contrastive_loss`, centring removes the prompt's own direction, which otherwise brings all cosines near 1.

    Args:
        embeddings: One vector per rollout.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Vectors that add up to 0 in each group, of the embeddings' dtype, computed in at least float32; exactly 0 for a
        singleton and for a group of equal vectors.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        CLIPO (arXiv 2603.10101): a setting of the official code (`debias`) that it reads and never applies.

    Examples:
        >>> center_by_group(torch.tensor([[1.0, 0.0], [3.0, 2.0], [7.0, 7.0]]), torch.tensor([0, 0, 1]))
        tensor([[-1., -1.],
                [ 1.,  1.],
                [ 0.,  0.]])
    """
    layout = as_layout(groups, len(embeddings))
    valid = rearrange(layout.valid, "groups slots -> groups slots 1")
    vectors = layout.gather(at_least_float32(embeddings))
    shifted = torch.where(valid, vectors - vectors.narrow(1, 0, 1).detach(), 0)  # exactly 0 where all vectors are equal
    mean = reduce(shifted, "groups slots dim -> groups 1 dim", "sum") / valid.sum(1, keepdim=True)
    return rounded(layout.scatter(shifted - mean), embeddings.dtype)


def _token_at(hidden: Tensor, positions: Tensor) -> Tensor:
    """The hidden states at some positions; zeros where a position is negative."""
    positions = rearrange(positions, "rollouts -> rollouts 1")
    index = positions.clamp(min=0).long().unsqueeze(2).expand(-1, -1, hidden.shape[2])
    return torch.where(positions >= 0, hidden.gather(1, index).squeeze(1), 0)
