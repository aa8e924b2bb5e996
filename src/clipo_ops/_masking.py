"""Masked sums and means, and the reductions of a token loss to one number."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipo_ops._groups import Groups, group_reducer
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped

AggregationMode = Literal[
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "prompt-mean"
]


@shaped
def aggregate(
    values: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    mode: AggregationMode = "token-mean",
    denominator: float | Float[Tensor, ""] | None = None,
    group_tokens: Int[Tensor, " rollouts"] | None = None,
) -> Float[Tensor, ""]:
    r"""Returns one number for the values of all tokens, the same one however the batch is split.

    With $m_{it}$ the mask, $v_{it}$ the values, $T_{g_i}$ the valid tokens of the whole group of rollout $i$ and $D$
    the denominator:

    | mode | result | $D$ by default |
    |---|---|---|
    | `token-mean` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | valid tokens |
    | `seq-mean-token-mean` | $\frac{1}{D}\sum_i \sum_t m_{it} v_{it} / \sum_t m_{it}$ | rollouts with a valid token |
    | `seq-mean-token-sum` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | rollouts with a valid token |
    | `seq-mean-token-sum-norm` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it}$ | none: pass one |
    | `prompt-mean` | $\frac{1}{D}\sum_{i,t} m_{it} v_{it} / T_{g_i}$ | groups with a valid token |

    The default denominator is that of this batch alone. To split a batch into micro-batches or over ranks, compute
    the denominator (`aggregate_denominator`) and the group tokens (`group_token_counts`) once from the whole batch, and
    pass them with every part: the parts' results and gradients then add up to those of the whole.

    Args:
        values: Values per token, such as a surrogate's loss.
        mask: True where a token counts.
        mode: The reduction.
        denominator: $D$, positive; a tensor may be 0, for a batch without a valid token, and then counts as 1.
        group_tokens: $T_{g_i}$ of each rollout, as from `group_token_counts`; for `prompt-mean` only, which needs it.

    Returns:
        A scalar of the values' dtype, summed in at least float32; 0 when no token is valid.

    Raises:
        ValueError: Unknown mode; `seq-mean-token-sum-norm` without a denominator; `prompt-mean` without
            `group_tokens`; a denominator that is not positive.

    Source:
        GRPO (arXiv 2402.03300, eq. 3) is `seq-mean-token-mean`; DAPO (arXiv 2503.14476, eq. 8) is `token-mean`;
        Dr. GRPO (arXiv 2503.20783, section 3.2) is `seq-mean-token-sum-norm` with $D$ = rollouts x maximum length;
        LUSPO (arXiv 2602.05261) is `seq-mean-token-sum`: the length times a loss that is the same at every token.
        `prompt-mean` is ScaleRL's choice (arXiv 2510.13786, section 3.2); formula as in prime-rl
        (`loss_aggregation = "prompt"`), AReaL and miles (`prompt_mean`).

    Examples:
        >>> values = torch.tensor([[1.0, 2.0], [6.0, float("nan")]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> aggregate(values, mask, mode="token-mean")
        tensor(3.)
        >>> aggregate(values, mask, mode="seq-mean-token-mean")
        tensor(3.7500)
        >>> group_tokens = group_token_counts(mask, torch.tensor([0, 0]))
        >>> aggregate(values, mask, mode="prompt-mean", group_tokens=group_tokens)
        tensor(3.)
    """
    if denominator is None:
        denominator = aggregate_denominator(mask, mode=mode, group_tokens=group_tokens)
    elif not isinstance(denominator, Tensor):
        require(denominator > 0, "denominator", "a positive number", denominator)
    if isinstance(denominator, Tensor):  # 0 if the whole batch has no valid token
        denominator = torch.where(denominator > 0, denominator, 1)
    per_rollout = sequence_mean(values, mask) if mode == "seq-mean-token-mean" else sequence_sum(values, mask)
    if mode == "prompt-mean":
        per_rollout = per_rollout / _required(group_tokens)
    return rounded(per_rollout.sum() / denominator, values.dtype)


@shaped
def aggregate_denominator(
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    mode: AggregationMode = "token-mean",
    max_length: int | None = None,
    group_tokens: Int[Tensor, " rollouts"] | None = None,
) -> Float[Tensor, ""]:
    r"""Returns the denominator of `aggregate`, to be computed from a whole batch before it is split.

    | mode | $D$ |
    |---|---|
    | `token-mean` | $\sum_{i,t} m_{it}$ |
    | `seq-mean-token-mean`, `seq-mean-token-sum` | $\#\{i : \sum_t m_{it} > 0\}$ |
    | `seq-mean-token-sum-norm` | $\#\{i : \sum_t m_{it} > 0\} \cdot T_{\max}$ |
    | `prompt-mean` | $\sum_{i,t} m_{it} / T_{g_i}$, the number of groups with a valid token |

    Rollouts without a valid token, such as padding or rollouts filtered out by the mask, are not counted, as in verl;
    TRL divides by all rollouts. The denominators of a batch's parts add up to that of the whole.

    Args:
        mask: True where a token counts.
        mode: A mode of `aggregate`.
        max_length: $T_{\max}$, the maximum response length in tokens; for `seq-mean-token-sum-norm` only.
        group_tokens: $T_{g_i}$ of each rollout, as from `group_token_counts`; for `prompt-mean` only.

    Returns:
        A float32 scalar; 0 for a batch without a valid token, which `aggregate` counts as 1.

    Raises:
        ValueError: Unknown mode; `seq-mean-token-sum-norm` without a positive `max_length`; `prompt-mean` without
            `group_tokens`.

    Source:
        See `aggregate`; which rollouts count is as in verl's `agg_loss`.

    Examples:
        The second rollout has no valid token, so the denominator is 1 rollout x 10 tokens, not 20:

        >>> mask = torch.tensor([[True, True], [False, False]])
        >>> aggregate_denominator(mask, mode="token-mean")
        tensor(2.)
        >>> aggregate_denominator(mask, mode="seq-mean-token-sum-norm", max_length=10)
        tensor(10.)
    """
    lengths = sequence_lengths(mask)
    if mode == "token-mean":
        return lengths.sum().float()
    if mode == "prompt-mean":
        return (lengths.float() / _required(group_tokens)).sum()
    rollouts = (lengths > 0).sum().float()
    if mode != "seq-mean-token-sum-norm":
        return rollouts
    if max_length is None or max_length < 1:
        wanted = "the maximum response length (or give aggregate a denominator) for mode 'seq-mean-token-sum-norm'"
        raise ValueError(f"max_length: expected {wanted}, got {max_length!r}")
    return rollouts * max_length


@shaped
def group_token_counts(mask: Bool[Tensor, "rollouts tokens"], groups: Groups) -> Int[Tensor, " rollouts"]:
    r"""Returns the number of valid tokens in each rollout's group, for `aggregate` with `prompt-mean`.

    $$T_{g_i} = \sum_{j : g_j = g_i} \sum_t m_{jt}$$

    Count them over the whole batch and pass each micro-batch the entries of its rollouts: a group may be split.

    Args:
        mask: True where a token counts.
        groups: Group ids or a `GroupLayout`.

    Returns:
        One int64 count per rollout, the same for all rollouts of a group.

    Raises:
        ValueError: `groups` for another number of rollouts.

    Source:
        See `aggregate`.

    Examples:
        >>> mask = torch.tensor([[True, True], [True, False], [True, True]])
        >>> group_token_counts(mask, torch.tensor([5, 5, 7]))
        tensor([3, 3, 2])
    """
    return group_reducer(groups, len(mask))(sequence_lengths(mask).long(), "sum")


@shaped
def whiten(
    values: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    shift_mean: bool = True,
    eps: float = 1e-8,
) -> Float[Tensor, "rollouts tokens"]:
    r"""Returns the values standardised over all valid tokens of the batch.

    $$w_{it} = \frac{v_{it} - \bar v}{\sqrt{\sigma^2 + \epsilon}}$$

    With `shift_mean=False`, $\bar v$ is added back.

    Args:
        values: Values per token, such as advantages.
        mask: True where a token counts.
        shift_mean: True for a result of mean 0; False keeps the mean of the values.
        eps: $\epsilon$, at least 0, in units of the squared values.

    Returns:
        Values of the same dtype, computed in at least float32 with the sample variance (n - 1); 0 under a False mask.
        If all values are equal, or there is only one, the deviations from the mean are exactly 0.

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
    largest = torch.where(mask, exact.detach(), -torch.inf).amax()  # equal values minus this are exactly 0
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
    return mask.sum(1, dtype=torch.int32)


def _required(group_tokens: Tensor | None) -> Tensor:
    """The tokens of each rollout's group, 1 where there are none."""
    if group_tokens is None:
        raise ValueError("group_tokens: expected the result of group_token_counts for mode 'prompt-mean', got None")
    return group_tokens.clamp(min=1)


@shaped
def top_entropy_mask(
    entropy: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    fraction: float = 0.2,
) -> Bool[Tensor, "rollouts tokens"]:
    r"""Returns a mask of the valid tokens with the highest entropy, the forking points of a chain of thought.

    $$\text{keep}_{it} = m_{it} \land H_{it} \ge \tau, \qquad \tau \text{ the } (1 - \text{fraction})
    \text{-quantile of the valid entropies}$$

    The quantile is taken over the tokens given, so pass the whole batch, before it is split.

    Args:
        entropy: $H$, as from `token_entropy`.
        mask: $m$, True where a token counts.
        fraction: The share of the $n$ valid tokens to keep, in (0, 1].

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
