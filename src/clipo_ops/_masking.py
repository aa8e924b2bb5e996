"""Masks over tokens, masked means, and the reductions of a token loss to one number."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped

AggregationMode = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


@shaped
def aggregate(
    values: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    mode: AggregationMode = "token-mean",
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""Reduces values per token to one number, the same one however the batch is split.

    With $m_{it}$ the mask, $v_{it}$ the values and $D$ the denominator:

    | mode | result | $D$ when not given |
    |---|---|---|
    | `token-mean` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | valid tokens |
    | `seq-mean-token-mean` | $\frac{1}{D}\sum_i \sum_t m_{it} v_{it} / \sum_t m_{it}$ | rollouts with a valid token |
    | `seq-mean-token-sum` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | rollouts with a valid token |
    | `seq-mean-token-sum-norm` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | none: always given |

    The denominators of this batch are right for this batch alone. A batch that is split into micro-batches or over
    ranks takes the denominator of the WHOLE batch (see `aggregate_denominator`) in every part; the parts' results,
    and their gradients, then add up to that of the whole.

    Args:
        values: Values per token, such as a surrogate's loss. What stands under a False mask may be anything, NaN
            included, and gets no gradient.
        mask: True where a token counts.
        mode: The reduction.
        denominator: $D$ above, positive; a tensor may be 0, for a batch without a valid token, and then counts as 1.

    Returns:
        A scalar of the values' dtype, summed in at least float32; 0 when no token is valid.

    Raises:
        ValueError: Unknown mode; `seq-mean-token-sum-norm` without a denominator; a denominator that is not positive.

    Source:
        GRPO (arXiv 2402.03300, eq. 3) is `seq-mean-token-mean`; DAPO (arXiv 2503.14476, eq. 8) is `token-mean`;
        Dr. GRPO (arXiv 2503.20783, section 3.1) is `seq-mean-token-sum-norm` with $D$ = rollouts x maximum length;
        LUSPO (arXiv 2602.05261) is `seq-mean-token-sum`: the length times a loss that is the same at every token.

    Examples:
        >>> values = torch.tensor([[1.0, 2.0], [6.0, float("nan")]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> aggregate(values, mask, mode="token-mean")
        tensor(3.)
        >>> aggregate(values, mask, mode="seq-mean-token-mean")
        tensor(3.7500)
    """
    if denominator is None:
        denominator = aggregate_denominator(mask, mode=mode)
    elif not isinstance(denominator, Tensor):
        require(denominator > 0, "denominator", "a positive number", denominator)
    if isinstance(denominator, Tensor):  # 0 if the whole batch has no valid token
        denominator = torch.where(denominator > 0, denominator, 1)
    per_rollout = sequence_mean(values, mask) if mode == "seq-mean-token-mean" else sequence_sum(values, mask)
    return rounded(per_rollout.sum() / denominator, values.dtype)


@shaped
def aggregate_denominator(
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    mode: AggregationMode = "token-mean",
    max_length: int | None = None,
) -> Float[Tensor, ""]:
    r"""The denominator that `aggregate` divides by, to be counted over a whole batch before it is split.

    $$D = \sum_{i,t} m_{it}, \qquad D = \#\{i : \textstyle\sum_t m_{it} > 0\}, \qquad D = \#\{i\} \cdot T_{\max}$$

    for `token-mean`, for the other sequence means, and for `seq-mean-token-sum-norm`. The denominators of parts of a
    batch add up to that of the whole.

    Args:
        mask: True where a token counts.
        mode: A mode of `aggregate`.
        max_length: Tokens a response may have at most; only for `seq-mean-token-sum-norm`.

    Returns:
        A float32 scalar; 0 for a batch without a valid token, which `aggregate` takes for 1.

    Raises:
        ValueError: Unknown mode; `seq-mean-token-sum-norm` without a positive `max_length`.

    Source:
        See `aggregate`.

    Examples:
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> aggregate_denominator(mask, mode="token-mean")
        tensor(4.)
        >>> aggregate_denominator(mask, mode="seq-mean-token-sum-norm", max_length=8)
        tensor(16.)
    """
    lengths = sequence_lengths(mask)
    if mode == "token-mean":
        return lengths.sum().float()
    rollouts = (lengths > 0).sum().float()
    if mode != "seq-mean-token-sum-norm":
        return rollouts
    if max_length is None or max_length < 1:
        wanted = "the maximum response length (or give aggregate a denominator) for mode 'seq-mean-token-sum-norm'"
        raise ValueError(f"max_length: expected {wanted}, got {max_length!r}")
    return rollouts * max_length


@shaped
def whiten(
    values: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    shift_mean: bool = True,
    eps: float = 1e-8,
) -> Float[Tensor, "rollouts tokens"]:
    r"""Values in units of their standard deviation over all valid tokens of the batch, with mean 0.

    $$w_{it} = \frac{v_{it} - \bar v}{\sqrt{\sigma^2 + \epsilon}}$$

    and $\bar v$ more without `shift_mean`.

    Args:
        values: Values per token. What stands under a False mask may be anything, NaN included, and gets no gradient.
        mask: True where a token counts.
        shift_mean: Whether the result has mean 0; if not, the values keep theirs.
        eps: $\epsilon$, at least 0, in units of the SQUARED values.

    Returns:
        Values of the same dtype, computed in at least float32 with the sample variance (n - 1); 0 under a False mask.
        Equal values, and a single one, have deviation EXACTLY 0.

    Raises:
        ValueError: `eps` below 0.

    Source:
        Advantage whitening as in PPO and REINFORCE++ (arXiv 2501.03262).

    Examples:
        >>> values = torch.tensor([[1.0, 3.0], [5.0, float("nan")]])
        >>> whiten(values, torch.tensor([[True, True], [True, False]]))
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """
    require(eps >= 0, "eps", "a number of at least 0", eps)
    if values.numel() == 0:
        return values
    exact = at_least_float32(values)
    largest = torch.where(mask, exact.detach(), -torch.inf).amax()  # a constant less this is exactly 0
    count = mask.sum()
    shifted = torch.where(mask, exact - largest, 0)
    mean = shifted.sum() / count.clamp(min=1)
    centered = torch.where(mask, shifted - mean, 0)
    variance = centered.square().sum() / (count - 1).clamp(min=1) + eps
    whitened = centered * torch.where(variance > 0, variance, 1).rsqrt()
    if not shift_mean:
        whitened = torch.where(mask, whitened + (mean + largest), 0)
    return rounded(whitened, values.dtype)


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sums over the valid tokens of each rollout, in at least float32."""
    return torch.where(mask, at_least_float32(values), 0).sum(1)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means over the valid tokens of each rollout, in at least float32; 0 where there is none."""
    return sequence_sum(values, mask) / sequence_lengths(mask).clamp(min=1)


def sequence_lengths(mask: Tensor) -> Tensor:
    """Valid tokens of each rollout."""
    return mask.sum(1, dtype=torch.int32)  # the default, int64, takes three times as long


@shaped
def top_entropy_mask(
    entropy: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    fraction: float = 0.2,
) -> Bool[Tensor, "rollouts tokens"]:
    r"""The valid tokens of highest entropy: the forks of a chain of thought.

    $$\text{keep}_{it} = m_{it} \land H_{it} \ge \tau, \qquad \tau \text{ the } (1 - \text{fraction})
    \text{-quantile of the valid entropies}$$

    By a sort, for any number of tokens and without waiting for the device. The quantile is that of the tokens given:
    give it the whole batch, before it is split.

    Args:
        entropy: $H$, as from `token_entropy`.
        mask: $m$, True where a token counts. What stands elsewhere may be anything, NaN included.
        fraction: How much of the $n$ valid tokens to keep, in (0, 1].

    Returns:
        True for the floor((n - 1) fraction) + 1 tokens of highest entropy, and for all that tie with the last of them.

    Raises:
        ValueError: `fraction` outside (0, 1].

    Source:
        Beyond the 80/20 rule (arXiv 2506.01939, section 5).

    Examples:
        >>> top_entropy_mask(torch.tensor([[0.1, 2.0, 0.3, 0.2, 9.0]]), torch.tensor([[True, True, True, True, False]]))
        tensor([[False,  True, False, False, False]])
    """
    require(0 < fraction <= 1, "fraction", "a number in (0, 1]", fraction)
    values = torch.where(mask, entropy.detach(), -math.inf)
    last = (mask.sum().double() - 1).mul(fraction).long().clamp(min=0)
    ordered = torch.nn.functional.pad(values.flatten(), (0, 1), value=-math.inf).sort(descending=True).values
    return mask & (values >= ordered.gather(0, last.unsqueeze(0)))
