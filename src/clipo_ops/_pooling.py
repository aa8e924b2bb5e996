"""A rollout's hidden states -> one vector."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._typing import at_least_float32, shaped


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
    return (total / mask.sum(1, keepdim=True).clamp(min=1)).to(hidden.dtype)


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
    if mask.shape[1] == 0:
        return hidden.sum(1)
    place = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, place, 0).amax(1)
    index = last.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])
    vector = hidden.gather(1, index).squeeze(1)
    return torch.where(mask.any(1, keepdim=True), vector, 0)
