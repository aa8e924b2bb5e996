"""Importance weights for samples of another engine or an older policy."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipo_ops._importance.masks import Level, importance_ratio
from clipo_ops._typing import require, shaped


@shaped
def truncated_importance_weights(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    floor: float = 0.0,
    cap: float = 2.0,
    level: Level = "token",
) -> Float[Tensor, "rollouts tokens"]:
    r"""Truncated importance sampling (TIS): the ratio of trainer to rollout engine, bounded from above.

    $$w_{it} = \operatorname{clip}(e^{c_{it}},\, F,\, C), \qquad
    d_{it} = \log \pi_\text{old}(y_{it}) - \log \pi_\text{rollout}(y_{it})$$

    | level | $c_{it}$ |
    |---|---|
    | `token` | $d_{it}$ |
    | `sequence` | $\sum_t m_{it} d_{it}$: the product of the ratios, the probability ratio of the whole response |
    | `geometric` | $\sum_t m_{it} d_{it} / \sum_t m_{it}$: their geometric mean, which does not grow with the length |

    Multiply a surrogate's loss by it.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            ratio is then exactly 1.
        mask: $m$, True where a token counts.
        floor: $F$, in [0, min(1, cap)]; OpenRLHF's default is 0.5.
        cap: $C$, above 0; 2 in the source and in verl.
        level: What the ratio is of, as above.

    Returns:
        Detached weights in [floor, cap] per token, of the dtype of `old_logprobs`: the same for all tokens of a
        response, except at the level `token`, where they are 1 (or the cap, if lower) under a False mask.

    Raises:
        ValueError: `cap` not above 0; `floor` outside its range; unknown `level`.

    Source:
        Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025); the level
        `sequence` as in TRL and verl; the floor as in OpenRLHF (`tis`).

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -3.0, float("nan")]])
        >>> truncated_importance_weights(old, rollout, torch.tensor([[True, True, True]]))
        tensor([[1.6487, 2.0000, 1.0000]])
    """
    require(cap > 0, "cap", "a number above 0", cap)
    require(0 <= floor <= min(1, cap), "floor", "a number in [0, min(1, cap)]", floor)
    ratio = importance_ratio(old_logprobs, rollout_logprobs, mask, level)
    return ratio.clamp(floor, cap).to(old_logprobs.dtype)


@shaped
def masked_importance_weights(
    old_logprobs: Float[Tensor, "rollouts tokens"],
    rollout_logprobs: Float[Tensor, "rollouts tokens"],
    mask: Bool[Tensor, "rollouts tokens"],
    *,
    low: float = 0.5,
    high: float = 2.0,
    level: Level = "token",
) -> Float[Tensor, "rollouts tokens"]:
    r"""Masked importance sampling (MIS): the ratio of trainer to rollout engine, and 0 where it is out of bounds.

    $$w_{it} = e^{c_{it}}\, 1[\text{low} \le e^{c_{it}} \le \text{high}]$$

    with $c$ as in `truncated_importance_weights`. Multiply a surrogate's loss by it. Weights of one level behind a gate
    of another are a product: see `importance_ratio_mask`.

    Args:
        old_logprobs: Log-probabilities of the response tokens by the trainer, before the update.
        rollout_logprobs: The same by the engine that sampled them. NaN where it could not give one: the token's own
            ratio is then exactly 1.
        mask: $m$, True where a token counts.
        low: Lowest ratio that counts, in [0, 1].
        high: Highest ratio that counts, at least 1. The defaults, 0.5 and 2, are those of TRL's example; IcePop has 0.5
            and 5, as OpenRLHF does.
        level: `"token"`, `"sequence"` or `"geometric"`, as in `truncated_importance_weights`.

    Returns:
        Detached weights per token, 0 or in [low, high], of the dtype of `old_logprobs`; at the level `token` 1 under a
        False mask.

    Raises:
        ValueError: A bound outside its range; unknown `level`.

    Source:
        The level `token` is IcePop (Ring-1T, arXiv 2510.18855); `sequence` is masked importance sampling as in TRL.

    Examples:
        >>> old, rollout = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -3.0, float("nan")]])
        >>> masked_importance_weights(old, rollout, torch.tensor([[True, True, True]]))
        tensor([[1.6487, 0.0000, 1.0000]])
    """
    require(0 <= low <= 1, "low", "a number in [0, 1]", low)
    require(high >= 1, "high", "a number of at least 1", high)
    ratio = importance_ratio(old_logprobs, rollout_logprobs, mask, level)
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0).to(old_logprobs.dtype)
