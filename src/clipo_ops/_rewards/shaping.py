"""Rewards per rollout and per token from lengths and verdicts."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._typing import require, shaped


@shaped
def overlong_penalty(
    lengths: Int[Tensor, " rollouts"],
    *,
    max_length: int,
    buffer: int,
    factor: float = 1.0,
) -> Float[Tensor, " rollouts"]:
    r"""A soft penalty for long responses: nothing up to a buffer before the limit, then linearly to the whole factor.

    $$r_i = -\lambda \operatorname{clip}\left(\frac{l_i - (l_{\max} - b)}{b},\; 0,\; 1\right)$$

    Args:
        lengths: $l$, the valid tokens of each response.
        max_length: $l_{\max}$: from this length on the penalty is whole. At least 1.
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
    return (excess.float() / buffer).clamp(0, 1) * -factor + 0.0


@shaped
def token_level_rewards(
    rewards: Float[Tensor, " rollouts"],
    mask: Bool[Tensor, "rollouts tokens"],
) -> Float[Tensor, "rollouts tokens"]:
    r"""Each rollout's reward at its last valid token, and 0 at all others.

    $$r_{it} = r_i [t = t_i], \qquad t_i = \max\{t : m_{it}\}$$

    Args:
        rewards: One reward per rollout.
        mask: True where a token counts; holes and padding on either side are allowed.

    Returns:
        Rewards of the same dtype. A rollout without a valid token gets none.

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
