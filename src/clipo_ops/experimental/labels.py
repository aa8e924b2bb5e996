"""Policy losses that read verdicts as labels of sequence scores, without advantages."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from clipo_ops._groups import Groups, as_layout
from clipo_ops._importance.ratios import log_ratio, sequence_log_ratio
from clipo_ops._masking import sequence_mean
from clipo_ops._typing import require, shaped
from clipo_ops.experimental._verdicts import verdicts


@shaped
def real_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    old_logprobs: Float[Tensor, "rollouts tokens"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    temperature: float = 0.5,
    denominator: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    r"""REAL: classifies each group's rollouts as correct or incorrect by their log-ratio, as a mean over groups.

    $$\frac{1}{D} \sum_g \log\Big(1 + \sum_{i \in C_g} e^{-\bar s_i / \tau}\Big)
    + \log\Big(1 + \sum_{j \in I_g} e^{\bar s_j / \tau}\Big)$$

    with $\bar s_i$ from `sequence_log_ratio`, and $C_g$ and $I_g$ the correct and incorrect rollouts of group $g$. The
    1 is the anchor, a rollout of score 0 between the two classes: it pushes correct rollouts above 0 and incorrect ones
    below, not only apart. A rollout's gradient is at most $1 / \tau$, however likely it is.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        old_logprobs: The same under the policy that sampled them; constants.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        mask: True where a token counts.
        temperature: $\tau$, above 0.
        denominator: $D$, positive: the groups of the whole batch; of this part alone when None.

    Returns:
        The loss, a scalar of the log-ratio's dtype. A group without both verdicts adds 0, and so does a rollout without
        a token.

    Raises:
        ValueError: `temperature` or `denominator` not above 0; `groups` for another number of rollouts.

    Source:
        Rewards as labels (REAL, arXiv 2602.05630), as in the authors' code (`compute_policy_loss_real` of Red-RL/REAL)
        and in ms-swift, which both use a temperature of 0.5. The paper's own text was not read beyond the abstract.

    Examples:
        >>> logprobs = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]])
        >>> old_logprobs = torch.tensor([[-1.0, -2.5], [-1.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> real_loss(logprobs, old_logprobs, torch.tensor([True, False]), torch.tensor([0, 0]), mask)
        tensor(1.1672)
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    if denominator is not None and not isinstance(denominator, Tensor):
        require(denominator > 0, "denominator", "a positive number", denominator)
    layout = as_layout(groups, len(success))
    correct, incorrect = verdicts(success, mask.any(1), layout)
    ratios = sequence_log_ratio(log_ratio(logprobs, old_logprobs.detach(), mask), mask)
    scores = layout.gather(ratios) / temperature
    positives = torch.where(correct, -scores, -torch.inf)
    negatives = torch.where(incorrect, scores, -torch.inf)
    anchor = (0, 1)  # padded by one score of 0
    losses = torch.logsumexp(pad(positives, anchor), 1) + torch.logsumexp(pad(negatives, anchor), 1)
    mixed = correct.any(1) & incorrect.any(1)
    total = torch.where(mixed, losses, 0).sum()
    if isinstance(denominator, Tensor):
        return total / torch.where(denominator > 0, denominator, 1).to(total.dtype)
    return total / (max(1, len(mixed)) if denominator is None else denominator)


@shaped
def conspo_loss(
    logprobs: Float[Tensor, "rollouts tokens"],
    success: Bool[Tensor, " rollouts"],
    groups: Groups,
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    temperature: float,
    margin: float = 0.0,
) -> Float[Tensor, " rollouts"]:
    r"""ConSPO: InfoNCE of each correct rollout's log-probability against the incorrect rollouts of its group.

    $$\ell_i = -\log \frac{e^{(s_i - m) / \tau}}{e^{(s_i - m) / \tau} + \sum_{j \in I_g} e^{s_j / \tau}}, \qquad
    s_i = \frac{1}{|y_i|} \sum_t \log \pi(y_{it})$$

    for correct $i$, with $I_g$ the incorrect rollouts of its group. A correct rollout that is already far above all
    incorrect ones gets next to no gradient; of the incorrect ones the likeliest get the most.

    Args:
        logprobs: Log-probabilities of the response tokens under the policy.
        success: True for correct rollouts.
        groups: Group ids or a `GroupLayout`.
        mask: True where a token counts.
        temperature: $\tau$, above 0, in nats per token.
        margin: $m$, at least 0, in nats per token: how far above the incorrect rollouts a correct one should be. The
            paper raises it on a schedule.

    Returns:
        One loss per rollout, in at least float32; 0, without a gradient, for incorrect rollouts, in groups without both
        verdicts, and without a token.

    Raises:
        ValueError: `temperature` not above 0, `margin` below 0; `groups` for another number of rollouts.

    Source:
        ConSPO (arXiv 2605.12969), as its abstract describes it: length-normalized sequence log-probabilities, a
        group-wise InfoNCE of each correct rollout against the incorrect ones, a scheduled margin. Its equations could
        not be read: where the margin enters is InfoNCE's usual place, and the paper's temperature, schedule and weights
        of rollouts and groups are not known here, hence no default and one loss per rollout.

    Examples:
        >>> logprobs = torch.tensor([[-0.5, -0.5], [-1.0, 0.0], [-2.0, -1.0]])
        >>> mask = torch.tensor([[True, True], [True, False], [True, True]])
        >>> success = torch.tensor([True, False, False])
        >>> conspo_loss(logprobs, success, torch.tensor([0, 0, 0]), mask, temperature=0.5)
        tensor([0.4076, 0.0000, 0.0000])
    """
    require(temperature > 0, "temperature", "a number above 0", temperature)
    require(margin >= 0, "margin", "a number of at least 0", margin)
    layout = as_layout(groups, len(success))
    correct, incorrect = verdicts(success, mask.any(1), layout)
    scores = layout.gather(sequence_mean(logprobs, mask))
    gaps = (scores.unsqueeze(1) - scores.unsqueeze(2) + margin) / temperature  # groups, correct one, incorrect one
    pairs = correct.unsqueeze(2) & incorrect.unsqueeze(1)
    losses = torch.logsumexp(pad(torch.where(pairs, gaps, -torch.inf), (0, 1)), 2)  # log(1 + sum of exp(gaps))
    return layout.scatter(losses)
