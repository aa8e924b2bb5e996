"""Contrastive objectives: the loss of one anchor, from its row of logits.

`contrastive_loss` builds such rows from embeddings and hands them to an objective. Any function of the same form works
in the place of ours.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipo_ops._numerics import at_least_float32, rounded, uniform_like
from clipo_ops._typing import shaped


@runtime_checkable
class Objective(Protocol):
    """A contrastive objective: the loss of each anchor, given a row of logits against its candidates.

    It reduces the last axis and treats every row on its own. A logit is (similarity - 1) / temperature, at most 0, so
    that exponentials never overflow; objectives that compare candidates are invariant to this shift. Logits are in at
    least float32, and a row's positives are among its candidates.

    Rows are the same on every device: one for each rollout. A rollout that is not an anchor has a row of zeros in
    which every column is a candidate and a positive; its result is discarded. The objective and its gradient should be
    finite there if it has parameters.

    An objective may be a closure or a module with parameters, which get their gradient in every scope. In scopes
    `"cross"` and `"batch"` it runs once more on each tile in the backward pass, and must then compute the same. Draws
    from torch's generators are repeated, wherever the generators come from; other random numbers are not.
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
    r"""Returns the InfoNCE loss against one positive $p$, drawn uniformly for each anchor.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - s_{ip}, \qquad p \sim U(P_i)$$

    Its expectation over the draw is `supcon_out`. The draw causes most of the variance between correct rollouts, so
    prefer `supcon_out` unless you need the paper's exact recipe.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
        candidates: $C_i$; never the anchor itself.
        generator: Source of the draw; the device's default generator when None. Pass one with
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
    exact = at_least_float32(logits)
    drawn = _draw_one(positives, generator)
    loss = _log_sum_exp(exact, candidates) - exact.gather(-1, drawn).squeeze(-1)
    return rounded(loss, logits.dtype)


@shaped
def supcon_out(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the supervised contrastive loss with the mean over positives outside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \frac{1}{|P_i|} \sum_{p \in P_i} s_{ip}$$

    It is the exact expectation of `infonce` over its draw. The other positives stay in the denominator, so that it is
    at least $\log |P_i|$.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
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
    exact = at_least_float32(logits)
    loss = _log_sum_exp(exact, candidates) - _mean(exact, positives)
    return rounded(loss, logits.dtype)


@shaped
def supcon_in(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the supervised contrastive loss with the mean over positives inside the logarithm.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \frac{1}{|P_i|} \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
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
    exact = at_least_float32(logits)
    log_mean_exp = _log_sum_exp(exact, positives) - positives.sum(-1).to(exact.dtype).log()
    return rounded(_log_sum_exp(exact, candidates) - log_mean_exp, logits.dtype)


@shaped
def soft_nearest_neighbor(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the soft nearest neighbour loss: minus the log-probability that a neighbour is a positive.

    $$L_i = \log \sum_{a \in C_i} e^{s_{ia}} - \log \sum_{p \in P_i} e^{s_{ip}}$$

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least 0 however many positives it has.

    Source:
        Soft nearest neighbor loss (arXiv 1902.01889, eq. 1).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> soft_nearest_neighbor(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.0943])
    """
    exact = at_least_float32(logits)
    loss = _log_sum_exp(exact, candidates) - _log_sum_exp(exact, positives)
    return rounded(loss, logits.dtype)


@shaped
def sincere(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the SINCERE loss: each positive against the negatives $N_i = C_i \setminus P_i$, mean over positives.

    $$L_i = \frac{1}{|P_i|} \sum_{p \in P_i} \Big[\log \Big(e^{s_{ip}} + \sum_{n \in N_i} e^{s_{in}}\Big) -
    s_{ip}\Big] = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \sigma \Big(s_{ip} - \log \sum_{n \in N_i} e^{s_{in}}\Big)$$

    `supcon_out` without the other positives in the denominator: correct rollouts do not push each other away, and
    perfect clusters reach the same loss however many positives they have.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, at least 0 however many positives it has; 0 without a negative.

    Source:
        SINCERE: supervised information noise-contrastive estimation revisited (arXiv 2309.14277, figure 1).

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> sincere(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([0.2201])
    """
    exact = at_least_float32(logits)
    negatives = _log_sum_exp(exact, candidates & positives.logical_not())
    margins = torch.where(positives, exact, 0) - negatives.unsqueeze(-1)
    loss = -_mean(logsigmoid(margins), positives)
    return rounded(loss, logits.dtype)


@shaped
def dcl(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the decoupled contrastive loss: no positive in the denominator, only the negatives $C_i \setminus P_i$.

    $$L_i = \log \sum_{n \in C_i \setminus P_i} e^{s_{in}} - \frac{1}{|P_i|} \sum_{p \in P_i} s_{ip}$$

    The gradient of a positive does not vanish as it comes closer. The loss has no lower bound, so it trains a head but
    makes a poor reward: rewards above 0 could outweigh the outcome.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row, all of them candidates.
        candidates: $C_i$; never the anchor itself.

    Returns:
        One loss per anchor, of either sign; at most that of `sincere`. 0 without a negative.

    Source:
        Decoupled contrastive learning (arXiv 2110.06848), formula as in github.com/raminnakhli's
        Decoupled-Contrastive-Learning. Theirs has one positive; with several we take the mean, as `supcon_out` does.

    Examples:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> dcl(logits, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]]))
        tensor([-1.5000])
    """
    exact = at_least_float32(logits)
    negatives = candidates & positives.logical_not()
    loss = _log_sum_exp(exact, negatives) - _mean(exact, positives)
    return rounded(torch.where(negatives.any(-1), loss, 0), logits.dtype)


@shaped
def centroid(
    logits: Float[Tensor, "*anchors candidates"],
    positives: Bool[Tensor, "*anchors candidates"],
    candidates: Bool[Tensor, "*anchors candidates"],
) -> Float[Tensor, "*anchors"]:
    r"""Returns the distance to the mean of the other correct rollouts; incorrect ones play no part.

    $$L_i = -\frac{1}{|P_i|} \sum_{p \in P_i} s_{ip} = \frac{1 - \hat z_i \cdot \bar z}{\tau}, \qquad
    \bar z = \frac{1}{|P_i|} \sum_{p \in P_i} \hat z_p$$

    The second form holds for the cosine logits of `contrastive_loss`, with embeddings $\hat z$ of length one. Equal
    embeddings for all rollouts reduce this loss to 0, which no other objective here allows: use it to measure, not to
    train a head.

    Args:
        logits: $s$, (similarity - 1) / temperature.
        positives: $P_i$; at least one per row.
        candidates: Ignored.

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
    return rounded(-_mean(at_least_float32(logits), positives), logits.dtype)


def _log_sum_exp(logits: Tensor, mask: Tensor) -> Tensor:
    """Over what is in a mask; the lowest finite number where nothing is, so that gradients stay finite."""
    return logits.masked_fill(mask.logical_not(), torch.finfo(logits.dtype).min).logsumexp(-1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1)


def _draw_one(mask: Tensor, generator: torch.Generator | None) -> Tensor:
    """The number of one column that is in a mask, for each row."""
    count = mask.sum(-1, keepdim=True, dtype=torch.int32)
    uniform = uniform_like(count, generator)
    rank = (uniform * count).int() + 1  # from 1 to count: a product with a number below 1 never rounds up to count
    return torch.searchsorted(mask.cumsum(-1, dtype=torch.int32), rank)  # the first column with so many up to it
