"""The sections of the configuration that say what is learned, and how."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass

from clipo_train.config.fields import STRICT, Beta, Count, Fraction, Natural, NonNegative, Positive


@dataclass(frozen=True, config=STRICT)
class RewardConfig:
    """Rewards besides the verifier's and the contrastive one. Whether a rollout is right does not depend on them."""

    overlong_buffer: Fraction = 0.0
    """Share of `rollout.max_new_tokens` at its end in which a response is penalised, linearly; 0 for no penalty."""
    overlong_weight: NonNegative = 1.0
    """Penalty of a response of `rollout.max_new_tokens`; see `clipo_ops.overlong_penalty`."""


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Advantages and the policy's loss."""

    advantages: Literal["grpo", "rloo", "opo", "maxrl", "gpg"] = "grpo"
    """Rewards to advantages: `clipo_ops.grpo_advantages` and so on."""
    advantage_scale: Literal["group", "batch", "none"] = "group"
    """What `grpo` divides centred rewards by."""
    advantage_eps: NonNegative = 1e-6
    """Added to what is divided by, of `grpo` and `maxrl`."""
    surrogate: Literal["clipped", "policy_gradient", "cispo", "sapo", "gmpo", "vespo", "dppo"] = "clipped"
    """What is minimised per token, with its own defaults: `clipo_ops.clipped_surrogate` and so on."""
    importance: Literal["token", "sequence"] = "token"
    """Ratio of each token, or of its whole response: `sequence` with `clipped` is GSPO (epsilons of 3e-4 and 4e-4)."""
    epsilon_low: Fraction = 0.2
    """With `clipped`, the ratio may fall to 1 - epsilon_low."""
    epsilon_high: NonNegative = 0.2
    """With `clipped`, the ratio may rise to 1 + epsilon_high."""
    dual_clip: Annotated[float, Gt(1)] | None = None
    """Bound on the loss where the advantage is negative, of `clipped`."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = (
        "token-mean"
    )
    """How token losses become one number; see `clipo_ops.aggregate`."""
    entropy_weight: NonNegative = 0.0
    """Weight of the policy's entropy, which the loss then keeps high; aggregated like the rest of the loss."""
    kl_weight: NonNegative = 0.0
    """Weight of the KL to the initial policy; above 0 a frozen copy of it is kept."""
    kl_in: Literal["loss", "reward"] = "loss"
    """`loss` adds it to the loss of every token; `reward` takes its sum over a response off the reward."""
    kl_estimator: Literal["k1", "k1+", "k2", "k3", "k3+", "abs", "unbiased"] = "k3"
    """See `clipo_ops.kl_estimate`; `unbiased` is `clipo_ops.unbiased_kl_estimate`. `k1` is refused in the loss, where
    its gradient is noise."""
    rollout_correction: Literal["none", "truncated", "masked"] = "none"
    """Weights for the mismatch between trainer and engine; see `clipo_ops.truncated_importance_weights` and
    `clipo_ops.masked_importance_weights`. Only for an engine with log-probabilities of its own."""
    rollout_level: Literal["token", "sequence", "geometric"] = "token"
    """What those weights are a ratio of."""
    rollout_low: Fraction = 0.5
    """`masked` drops ratios below it."""
    rollout_high: Annotated[float, Ge(1)] = 2.0
    """`masked` drops ratios above it; `truncated` caps them there."""


@dataclass(frozen=True, config=STRICT)
class ClipoConfig:
    """The contrastive reward and the head that makes it."""

    enabled: bool = True
    """False trains by the outcome reward alone: plain GRPO."""
    objective: Literal["infonce", "supcon_out", "supcon_in", "soft_nearest_neighbor", "sincere", "centroid"] = "infonce"
    """Contrastive objective; `infonce` is the paper's."""
    scope: Literal["group", "cross", "batch"] = "group"
    """Where positives and other candidates come from; see `clipo_ops.contrastive_loss`."""
    similarity: Literal["cosine", "l2"] = "cosine"
    """Of two embeddings."""
    temperature: Positive = 0.05
    """Of the similarities."""
    offset: Literal["none", "log_positives"] = "none"
    """`log_positives` subtracts log |P| from the loss, so that the best possible reward is 0; not for the last three
    objectives, whose lower bound is 0."""
    weight: NonNegative = 0.2
    """Lambda: the reward is max(-weight * loss, floor)."""
    floor: Annotated[float, Le(0)] = -0.5
    """Lowest contrastive reward."""
    head: Literal["linear", "mlp"] = "linear"
    """A matrix, or two with a ReLU between them."""
    dim: Count = 512
    """Size of an embedding."""
    frozen: bool = False
    """The head stays as it was drawn."""
    learning_rate: Positive = 1e-3
    """Of the head's AdamW; one step per step of the trainer, but for `warmup_epochs`."""
    weight_decay: NonNegative = 0.01
    """Of the head's AdamW."""
    warmup_steps: Natural = 0
    """First steps in which only the head learns, on rollouts of the policy as it is."""
    warmup_epochs: Count = 1
    """Steps that the head takes on the rollouts of each of them, in place of as many batches thrown away."""


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """The policy's optimizer: AdamW."""

    learning_rate: Positive = 1e-6
    """Peak learning rate."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's."""
    weight_decay: NonNegative = 0.01
    """AdamW's."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    max_skipped: Count = 3
    """An update with a loss or gradient that is not finite is skipped; after this many in a row the run stops."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes after its warm-up."""
    warmup_updates: Natural = 0
    """Updates over which it rises from 0."""
    epochs: Count = 1
    """Passes over each batch of rollouts, each in an order of its own."""
    minibatch_size: Count = 64
    """Rollouts per update; divides `rollout.batch_size`."""
    micro_batch_size: Count = 64
    """Rollouts per forward and backward pass; divides `minibatch_size`. Changes memory and speed, not the result."""
