"""Contrastive objectives: the loss of one anchor, from its row of logits.

`contrastive_loss` builds such rows from embeddings and hands them to an objective. Any function of the same form works
in the place of ours.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from clipo_ops._numerics import as_numbers, at_least_float32, rounded
from clipo_ops._typing import shaped


@runtime_checkable
class Objective(Protocol):
    """A contrastive objective: one loss per anchor, from a row of logits against its candidates.

    It must reduce the last axis and treat every row on its own. `contrastive_loss` calls it with logits in at least
    float32, the positives among the candidates, and the candidates. A logit is (similarity - 1) / temperature: minus a
    distance over the temperature, at most 0, so that exponentials never overflow; the shift by a constant is nothing to
    an objective that compares candidates. Rows that are no anchor are left out on a CPU (there may be no row at all);
    compiled or on a GPU they are shown as all-zero logits with every column positive, and their result is thrown away.
    So there is at least one positive in every row.

    A row may come twice, in tiles whose gradient is computed anew. An objective that draws gets the same numbers then,
    if it draws from the device's default generator or from one bound by `functools.partial`.
    """

    def __call__(
        self,
        logits: Float[Tensor, "*anchors candidates"],
        positives: Bool[Tensor, "*anchors candidates"],
        candidates: Bool[Tensor, "*anchors candidates"],
        /,
    ) -> Float[Tensor, "*anchors"]: ...


@shaped
def infonce(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*anchors"]:
    r"""InfoNCE against one positive $p$, drawn uniformly for every anchor.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - s_{ip}, \qquad p \sim U(P_i)$$

    Its expectation over the draw is `supcon_out`; the draw is most of the variance between correct rollouts, so
    prefer `supcon_out` where the paper's exact recipe does not matter.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.
        generator: Where the draw comes from; the device's default generator when None. Give one with
            `functools.partial(infonce, generator=g)`, and save its state with your checkpoint.

    Returns:
        One loss per anchor, at least 0.

    Source:
        Contrastive predictive coding (arXiv 1807.03748, eq. 4); CLIPO's default (arXiv 2603.10101).

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> infonce(logits, torch.tensor([[True, False]]), torch.tensor([[True, True]]))
        tensor([0.1269])
    """
    place = positives.cumsum(-1, dtype=torch.int32)
    count = positives.sum(-1, keepdim=True, dtype=torch.int32)
    draw = torch.rand_like(count, dtype=torch.float32, generator=generator)
    drawn = torch.searchsorted(place, (draw * count).int() + 1)  # draw * count < count, also when rounded
    chosen = at_least_float32(logits).gather(-1, drawn).squeeze(-1)
    return rounded(_shown(logits, candidates).logsumexp(-1) - chosen, logits.dtype)


@shaped
def supcon_out(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Supervised contrastive loss, mean over positives outside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \frac{1}{|P_i|} \sum_{p \in P_i} s_{ip}$$

    The exact expectation of `infonce` over its draw, without the draw's noise. At least $\log |P_i|$: the other
    positives stay in the denominator.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least $\log |P_i|$.

    Source:
        Supervised contrastive learning (arXiv 2004.11362, eq. 2).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> supcon_out(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.9076])
    """
    shown = _shown(logits, candidates)
    return rounded(shown.logsumexp(-1) - _mean(shown, positives), logits.dtype)


@shaped
def supcon_in(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Supervised contrastive loss, mean over positives inside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \frac{1}{|P_i|} \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least $\log |P_i|$ and at most that of `supcon_out`.

    Source:
        Supervised contrastive learning (arXiv 2004.11362, eq. 3).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> supcon_in(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.7875])
    """
    shown = _shown(logits, candidates)
    loss = shown.logsumexp(-1) - _only(shown, positives).logsumexp(-1)
    return rounded(loss + positives.sum(-1).to(loss.dtype).log(), logits.dtype)


@shaped
def soft_nearest_neighbor(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Soft nearest neighbour loss: how likely a neighbour drawn by similarity is a positive.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least 0: its floor does not grow with the number of positives.

    Source:
        Soft nearest neighbor loss (arXiv 1902.01889, eq. 1).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> soft_nearest_neighbor(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.0943])
    """
    shown = _shown(logits, candidates)
    return rounded(shown.logsumexp(-1) - _only(shown, positives).logsumexp(-1), logits.dtype)


@shaped
def decoupled(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Contrastive loss of each positive against the negatives only, mean over positives.

    $$L_i = \frac{1}{|P_i|} \sum_{p \in P_i} \Big[\log \Big(e^{s_{ip}} + \sum_{n \in C_i \setminus P_i} e^{s_{in}}\Big)
    - s_{ip}\Big]$$

    `supcon_out` with the other positives taken out of the denominator: correct rollouts no longer push each other
    away, and perfect clusters reach the same loss however many positives they have.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, and a subset of `candidates`.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least 0: its floor does not grow with the number of positives. 0 without a negative.

    Source:
        After decoupled contrastive learning (arXiv 2110.06848), which drops $p$ itself from the denominator as well,
        so that its loss has no lower bound.

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> decoupled(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.2201])
    """
    shown = _shown(logits, candidates)
    negatives = _only(shown, positives.logical_not()).logsumexp(-1, keepdim=True)
    return rounded(_mean(softplus(negatives - shown, threshold=40), positives), logits.dtype)


@shaped
def centroid(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""The distance to the mean of the other correct rollouts; wrong ones take no part.

    $$L_i = -\frac{1}{|P_i|} \sum_{p \in P_i} s_{ip} = \frac{1 - \hat z_i \cdot \bar z}{\tau}, \qquad
    \bar z = \frac{1}{|P_i|} \sum_{p \in P_i} \hat z_p$$

    The second form is that of cosine logits as `contrastive_loss` makes them, $\hat z$ being embeddings of length one.
    As the only objective here it can be driven to 0 by equal embeddings for all: it is a measure rather than something
    to train a head on.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row.
        candidates: Takes no part.

    Returns:
        One loss per anchor, at least 0 for logits at most 0.

    Source:
        The alignment of contrastive learning, $\lVert \hat z_i - \hat z_p \rVert^2 / 2$ (arXiv 2005.10242). Latent-GRPO
        (arXiv 2601.08427) is related: its reward is a distance to a robust centroid of correct hidden states.

    Examples:
        >>> logits = torch.tensor([[-1.0, -2.0, -5.0]])
        >>> centroid(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([1.5000])
    """
    return rounded(-_mean(_shown(logits, positives), positives), logits.dtype)


_LOWEST = -1e30  # of which 0 times is 0, and e to it too


def _shown(logits: Tensor, candidates: Tensor) -> Tensor:
    return torch.where(candidates, at_least_float32(logits), _LOWEST)


def _only(shown: Tensor, mask: Tensor) -> Tensor:
    """What is shown and in a mask, by arithmetic: on a CPU `where` is a branch, and verdicts are hard to predict."""
    return torch.add(shown, as_numbers(mask, shown.dtype) - 1, alpha=-_LOWEST)


def _mean(shown: Tensor, mask: Tensor) -> Tensor:
    weights = as_numbers(mask, shown.dtype)
    return (shown * weights).sum(-1) / weights.sum(-1)
