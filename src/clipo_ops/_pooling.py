"""A rollout's hidden states -> one vector, and vectors less their group's mean."""

import torch
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
    r"""The mean of a rollout's hidden states over its response tokens.

    $$h_i = \frac{\sum_t m_{it} h_{it}}{\max(1, \sum_t m_{it})}$$

    Summed in at least float32: a running sum in bfloat16 loses a third of its value by 1024 tokens, and the error
    grows with length.

    Args:
        hidden: Hidden states, such as a model's last layer.
        mask: True at the tokens to average. What stands elsewhere may be anything, NaN included.

    Returns:
        One vector per rollout, of the hidden states' dtype; zeros, without gradient, for a rollout with no token.

    Source:
        CLIPO (arXiv 2603.10101): the embedding is taken from the mean of the last layer over response tokens.

    Examples:
        >>> hidden = torch.tensor([[[1.0, 4.0], [3.0, 8.0], [9.0, 9.0]]])
        >>> mean_pool(hidden, torch.tensor([[True, True, False]]))
        tensor([[2., 6.]])
    """
    total = torch.where(mask.unsqueeze(2), at_least_float32(hidden), 0).sum(1)
    return rounded(total / mask.sum(1, keepdim=True).clamp(min=1), hidden.dtype)


@shaped
def last_token_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""The hidden state of a rollout's last response token.

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
    place = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, place, -1)
    return _token_at(hidden, last.amax(1) if mask.shape[1] else last.sum(1))


@shaped
def token_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    positions: Int[Tensor, " rollouts"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""The hidden state at one token of each rollout, such as the one before its answer.

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
    return _token_at(hidden, positions)


@shaped
def max_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""The largest value of every hidden unit over a rollout's response tokens.

    $$h_{ik} = \max_{t : m_{it}} h_{itk}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        mask: True at the tokens that count. What stands elsewhere may be anything, NaN included.

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
    largest = torch.where(mask.unsqueeze(2), hidden, -torch.inf).amax(1)
    return torch.where(mask.any(1, keepdim=True), largest, 0)


@shaped
def weighted_pool(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    weights: Float[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts hidden"]:
    r"""The mean of a rollout's hidden states under a weight per token, such as its entropy.

    $$h_i = \frac{\sum_t w_{it} h_{it}}{\sum_t w_{it}}$$

    Args:
        hidden: Hidden states, such as a model's last layer.
        weights: $w$, at least 0, of any scale. Where one is 0 the hidden state may be anything, NaN included, and the
            weight gets no gradient.

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
    states = torch.where(counts.unsqueeze(2), at_least_float32(hidden), 0)
    positive = torch.where(counts, weights, 0).to(torch.promote_types(weights.dtype, states.dtype))
    total = positive.sum(1, keepdim=True)
    share = (positive / torch.where(total > 0, total, 1)).unsqueeze(2)
    return rounded((share * states).sum(1), hidden.dtype)


@shaped
def segment_mean_pool(
    hidden: Float[Tensor, "tokens hidden"],
    segment_ids: Int[Tensor, " tokens"],
    *,
    num_segments: int,
) -> Float[Tensor, "rollouts hidden"]:
    r"""`mean_pool` of rollouts that are packed into one sequence.

    $$h_i = \frac{\sum_{t : s_t = i} h_t}{\max(1, \#\{t : s_t = i\})}$$

    Args:
        hidden: Hidden states of all tokens, one after another.
        segment_ids: $s$, the rollout of each token, in any order. Tokens outside [0, num_segments), such as prompts and
            padding at -1, are left out; their states may be anything, NaN included.
        num_segments: Rollouts, at least 1.

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
    place = torch.where(inside, segment_ids, num_segments).long()
    states = torch.where(inside.unsqueeze(1), at_least_float32(hidden), 0)
    total = states.new_zeros(num_segments + 1, hidden.shape[1]).index_add(0, place, states)
    count = states.new_zeros(num_segments + 1, 1).index_add(
        0, place, torch.ones_like(inside, dtype=states.dtype).unsqueeze(1)
    )
    return rounded((total / count.clamp(min=1)).narrow(0, 0, num_segments), hidden.dtype)


@shaped
def center_by_group(
    embeddings: Float[Tensor, "rollouts dim"],
    groups: Groups,
) -> Float[Tensor, "rollouts dim"]:
    r"""Vectors less their group's mean: what a prompt's rollouts all share is no evidence of how they were solved.

    $$\tilde z_i = z_i - \bar z_{g_i}$$

    Before `contrastive_loss`, it takes away the prompt's own direction, which otherwise brings all cosines near 1.

    Args:
        embeddings: One vector per rollout.
        groups: Group ids or a `GroupLayout`.

    Returns:
        Vectors that add up to 0 in each group, of the embeddings' dtype, computed in at least float32; EXACTLY 0 for a
        singleton and for a group of one vector.

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
    valid = layout.valid.unsqueeze(2)
    rows = layout.gather(at_least_float32(embeddings))
    shifted = torch.where(valid, rows - rows.narrow(1, 0, 1).detach(), 0)  # exactly 0 where all are one vector
    centered = shifted - shifted.sum(1, keepdim=True) / valid.sum(1, keepdim=True)
    return rounded(layout.scatter(centered), embeddings.dtype)


def _token_at(hidden: Tensor, positions: Tensor) -> Tensor:
    if hidden.shape[1] == 0:
        return hidden.sum(1)
    index = positions.clamp(min=0).long().view(-1, 1, 1).expand(-1, 1, hidden.shape[2])
    return torch.where((positions >= 0).unsqueeze(1), hidden.gather(1, index).squeeze(1), 0)
