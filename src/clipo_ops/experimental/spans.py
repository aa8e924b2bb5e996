"""Weights of tokens by how far their hidden states are from those of rollouts with the other verdict."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from clipo_ops._groups import Groups, as_layout
from clipo_ops._numerics import at_least_float32, rounded
from clipo_ops._typing import require, shaped
from clipo_ops.experimental._verdicts import verdicts


@shaped
def shear_weights(
    hidden: Float[Tensor, "rollouts tokens hidden"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    regularization: float,
    window: int = 100,
    stride: int = 25,
    iterations: int = 20,
) -> Float[Tensor, "rollouts tokens"]:
    r"""SHEAR: weights for token advantages, large where states are unlike those of the opposite verdict.

    $$\omega_{it} = \frac{1}{\bar n_g} \max_{k : t \in S_{ik}} \min_{j \in O_i} \min_l W_\epsilon(S_{ik}, S_{jl}),
    \qquad \tilde A_{it} = \omega_{it} A_i$$

    with $S_{ik}$ the states of a response's $k$-th span, $O_i$ the group's incorrect rollouts for a correct one and the
    correct ones for an incorrect one, $W_\epsilon$ the Wasserstein distance between two spans, and $\bar n_g$ the mean
    norm of the group's states. $W_\epsilon$ is $\sum_{ab} \gamma_{ab} \lVert x_a - y_b \rVert$ with the plan
    $\gamma$ from Sinkhorn's iterations for the entropy weight $\epsilon$. A weight scales an advantage and never turns
    its sign.

    It is made for a GPU: the time grows with groups x (slots x tokens x window / stride)^2 x iterations, the memory
    with slots^2 x tokens x window^2 / stride.

    Args:
        hidden: The last layer's states, as constants.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        mask: True where a token counts.
        regularization: $\epsilon$, above 0, in units of the distance between states. The paper's $\epsilon \log n$ is
            about 20.8, so 4.5 for spans of 100 tokens.
        window: Tokens in a span, at least 1.
        stride: Tokens from one span's start to the next one's, from 1 to `window`.
        iterations: Sinkhorn's, at least 1.

    Returns:
        Weights of at least 0, detached, of the states' dtype; 1, which leaves the advantage as it is, where no rollout
        of the group has the opposite verdict, and 0 under a False mask.

    Raises:
        ValueError: `regularization` not above 0, `window` or `iterations` below 1, `stride` not in [1, window];
            `groups` for another number of rollouts.

    Source:
        SHEAR (arXiv 2604.23318), eqs. 2-4 and algorithm 1 as a public formalization of the paper in Gaia quotes them;
        of the paper itself the abstract was read. Window and stride are the paper's. Where the last span begins was not
        said: here it is the first that reaches the response's end. The number of iterations is this library's.

    Examples:
        >>> hidden = torch.tensor([[[1.0], [1.0]], [[1.0], [3.0]]])
        >>> success, groups, mask = torch.tensor([True, False]), torch.tensor([0, 0]), torch.ones(2, 2).bool()
        >>> shear_weights(hidden, success, groups, mask, regularization=0.1, window=1, stride=1)
        tensor([[0.0000, 0.0000],
                [0.0000, 1.3333]])
    """
    require(regularization > 0, "regularization", "a number above 0", regularization)
    require(window >= 1, "window", "at least 1", window)
    require(1 <= stride <= window, "stride", "a number from 1 to window", stride)
    require(iterations >= 1, "iterations", "at least 1", iterations)
    layout = as_layout(groups, len(success))
    correct, incorrect = verdicts(success, mask.any(1), layout)
    opposite = (correct.unsqueeze(2) & incorrect.unsqueeze(1)) | (incorrect.unsqueeze(2) & correct.unsqueeze(1))
    counts = layout.gather(mask) & layout.valid.unsqueeze(2)
    states = torch.where(counts.unsqueeze(3), layout.gather(at_least_float32(hidden.detach())), 0)
    distances = _opposite_distances_op(states, counts, opposite, regularization, window, stride, iterations)
    norms = torch.linalg.vector_norm(states, dim=3).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
    norms = torch.where(norms > 0, norms, 1).view(-1, 1, 1)
    weights = torch.where(opposite.any(2, keepdim=True), distances / norms, 1)
    return rounded(layout.scatter(torch.where(counts, weights, 0)), hidden.dtype)


def _opposite_distances(
    states: Tensor,
    counts: Tensor,
    opposite: Tensor,
    regularization: float,
    window: int,
    stride: int,
    iterations: int,
) -> Tensor:
    """The largest distance, over the spans of each token, to the nearest span of the opposite verdict."""
    tokens = counts.shape[2]
    spans = -(-max(tokens - window, 0) // stride) + 1
    missing = (spans - 1) * stride + window - tokens
    padded, counts = pad(states, (0, 0, 0, missing)), pad(counts, (0, missing))
    first = stride * torch.arange(spans, device=states.device)
    place = torch.arange(tokens, device=states.device)
    end = (counts * torch.arange(1, tokens + missing + 1, device=states.device)).amax(2, keepdim=True)
    in_span = counts.unfold(2, window, stride)  # groups, slots, spans, window
    exists = in_span.any(3) & ((first == 0) | (first - stride + window < end))  # no span before it reached the end
    covers = (first <= place.unsqueeze(1)) & (place.unsqueeze(1) < first + window)  # tokens, spans
    result = [states.new_zeros(0, *states.shape[1:3])]
    for own, own_spans, real, others in zip(padded, in_span, exists, opposite, strict=True):
        targets = others.unsqueeze(2) & real  # slots, slots, spans
        nearest = [_nearest(own, own_spans, span, targets, regularization, stride, iterations) for span in range(spans)]
        distances = torch.where(real, torch.stack(nearest, 1), 0).unsqueeze(1)
        result.append(torch.where(covers, distances, 0).amax(2).unsqueeze(0))
    return torch.cat(result)


# An operator of its own: how many spans there are depends on the number of tokens, which a dynamic graph leaves open.
_opposite_distances_op = torch.library.custom_op("clipo::opposite_distances", _opposite_distances, mutates_args=())


@_opposite_distances_op.register_fake
def _(states: Tensor, *_: object) -> Tensor:
    return states.new_empty(states.shape[:3])


def _nearest(
    states: Tensor, in_span: Tensor, span: int, targets: Tensor, regularization: float, stride: int, iterations: int
) -> Tensor:
    """The distance of one span of each rollout to the nearest of its targets: one per slot."""
    window = in_span.shape[2]
    own = states.narrow(1, span * stride, window)
    costs = torch.cdist(own.unsqueeze(1), states.unsqueeze(0))
    costs = costs.unfold(3, window, stride).movedim(3, 2)  # slots, slots, spans, window, window
    distances = _sinkhorn(costs, in_span.select(1, span), in_span, regularization, iterations)
    return torch.where(targets, distances, torch.inf).amin((1, 2))


def _sinkhorn(costs: Tensor, rows: Tensor, columns: Tensor, regularization: float, iterations: int) -> Tensor:
    """The cost of the entropic plan between the rows and columns that count, all of one weight."""
    kernel = -costs / regularization
    log_row = _log_uniform(rows, costs.dtype).unsqueeze(1).unsqueeze(1)
    log_column = _log_uniform(columns, costs.dtype)
    v = log_column
    for _ in range(iterations):
        u = log_row - torch.logsumexp(kernel + v.unsqueeze(-2), -1)
        v = log_column - torch.logsumexp(kernel + u.unsqueeze(-1), -2)
    plan = torch.exp(kernel + u.unsqueeze(-1) + v.unsqueeze(-2))
    return (plan * costs).sum((-2, -1))


def _log_uniform(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """The logarithm of equal weights for what counts; -inf for the rest."""
    return (counts.to(dtype) / counts.sum(-1, keepdim=True).clamp(min=1)).log()
