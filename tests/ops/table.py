"""Every public function with example inputs: what the tests of compilation, fake tensors, dtypes and errors run over.

A new public function needs a row in `CASES` (and an oracle in `oracles.py`), or `test_table.py` fails.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import clipo_ops
from clipo_ops import GroupLayout, experimental

PUBLIC: dict[str, Any] = {
    name: getattr(module, name) for module in (clipo_ops, experimental) for name in module.__all__
}


class Case(NamedTuple):
    """One call: a public function, its tensor arguments by the name of an example, and its options."""

    op: str
    arguments: dict[str, str]
    options: dict[str, Any]

    @property
    def function(self) -> Any:
        return PUBLIC[self.op]

    def inputs(self, dtype: torch.dtype = torch.float32, rollouts: int = 12) -> dict[str, Any]:
        """Tensor arguments by keyword; random, the same ones at every call."""
        available = examples(dtype, rollouts)
        return {argument: available[name] for argument, name in self.arguments.items()}

    def __call__(self, inputs: dict[str, Any]) -> Any:
        return self.function(**inputs, **self.options)

    def __str__(self) -> str:
        names = [f"{k}={v}" for k, v in self.arguments.items() if k != v]
        options = [f"{k}={getattr(v, '__name__', v)}" for k, v in self.options.items()]
        return f"{self.op}({', '.join(names + options)})"


def case(op: str, arguments: str, **options: Any) -> Case:
    """`arguments` lists examples; "groups=layout" passes the example `layout` as `groups`."""
    pairs = [item.partition("=") for item in arguments.split()]
    return Case(op, {argument: name or argument for argument, _, name in pairs}, options)


CASES = [
    case("mean_pool", "hidden mask"),
    case("last_token_pool", "hidden mask"),
    case("max_pool", "hidden mask"),
    case("weighted_pool", "hidden weights"),
    case("token_pool", "hidden positions"),
    case("segment_mean_pool", "hidden=packed segment_ids", num_segments=5),
    case("center_by_group", "embeddings groups=layout"),
    case("center_by_group", "embeddings groups=ordered"),
    case("supcon_out", "logits=rows positives candidates"),
    case("supcon_in", "logits=rows positives candidates"),
    case("soft_nearest_neighbor", "logits=rows positives candidates"),
    case("decoupled", "logits=rows positives candidates"),
    case("centroid", "logits=rows positives candidates"),
    case("infonce", "logits=rows positives=one_positive candidates"),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.supcon_out),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.supcon_in, reduction="none"),
    case("contrastive_loss", "embeddings success groups=ordered", objective=clipo_ops.soft_nearest_neighbor),
    case("contrastive_loss", "embeddings success=two_correct groups=ordered", reduction="none"),
    case("contrastive_loss", "embeddings success=two_correct groups=reversed", reduction="sum"),
    case("contrastive_loss", "embeddings success groups=layout", objective=clipo_ops.decoupled, similarity="l2"),
    case("contrastive_loss", "embeddings success groups=ordered", objective=clipo_ops.centroid, anchors="all"),
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_out, scope="cross"),
    case("contrastive_loss", "embeddings success=two_correct groups=reversed", scope="cross", reduction="none"),
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_in, scope="batch"),
    case(
        "contrastive_loss",
        "embeddings success groups=layout",
        objective=clipo_ops.supcon_out,
        scope="batch",
        floor="log_positives",
        reduction="none",
    ),
    case("contrastive_anchors", "success groups=layout"),
    case("consensus_reward", "states success groups=layout"),
    case("consensus_reward", "states success=two_correct groups=ordered", gate=0.5),
    case("contrastive_anchors", "success groups=ordered"),
    case("contrastive_anchors", "success groups=ids"),
    case("contrastive_anchors", "success groups=ids", scope="cross"),
    case("contrastive_anchors", "success groups=layout", scope="batch", anchors="all"),
    case("gather_rollouts", "values=embeddings"),  # in one process; see test_distributed.py for several
    case("group_similarity", "embeddings success groups=layout"),
    case("group_similarity", "embeddings success groups=ordered"),
    case("noise_share", "embeddings success groups=layout", temperature=0.5),
    case("noise_share", "embeddings success groups=ordered"),
    case("process_gap", "rewards success=two_correct process groups=ordered"),
    case("degenerate_fraction", "rewards groups=layout"),
    case("clamp_fraction", "rewards anchors=success"),
    case("contrastive_reward", "loss"),
    case("grpo_advantages", "rewards groups=ids"),
    case("grpo_advantages", "rewards groups=layout"),
    case("grpo_advantages", "rewards groups=ordered", scale="none"),
    case("grpo_advantages", "rewards groups=ids", scale="batch"),
    case("rloo_advantages", "rewards groups=ids"),
    case("rloo_advantages", "rewards groups=layout"),
    case("opo_advantages", "rewards lengths groups=ids"),
    case("opo_advantages", "rewards lengths groups=layout"),
    case("maxrl_advantages", "rewards=loss groups=ids"),
    case("maxrl_advantages", "rewards=loss groups=layout"),
    case("gpg_advantages", "rewards groups=ids"),
    case("gpg_advantages", "rewards groups=layout", scale=2.0),
    case("pass_at_k_advantages", "success groups=ids", k=2),
    case("pass_at_k_advantages", "success groups=ordered", k=2),
    case("remax_advantages", "rewards greedy_rewards=advantages"),
    case("combine_rewards", "rewards=signals groups=ids"),
    case("combine_rewards", "rewards=signals groups=layout", method="gdpo", weights=(1.0, 0.5)),
    case("gdpo_advantages", "rewards=signals groups=ids"),
    case("gdpo_advantages", "rewards=signals groups=ordered", weights=(1.0, 0.5)),
    case("informative_groups", "rewards groups=ids"),
    case("informative_groups", "rewards groups=layout"),
    case("guarded_rewards", "rewards success groups=ids"),
    case("guarded_rewards", "rewards success groups=layout", margin=0.1),
    case("reward_inversions", "rewards success groups=ids"),
    case("reward_inversions", "rewards success groups=layout"),
    case("negative_credit", "advantages success"),
    case("overlong_penalty", "lengths", max_length=6, buffer=3),
    case("token_level_rewards", "rewards mask"),
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask"),
    case("reinforce_plus_plus_advantages", "token_rewards=token_advantages mask", discount=0.9),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=ids"),
    case("reinforce_plus_plus_baseline_advantages", "rewards mask groups=layout"),
    case("gae_advantages", "token_rewards=token_advantages values=logprobs mask", discount=0.9),
    case("whiten", "values=logprobs mask"),
    case("whiten", "values=logprobs mask", shift_mean=False),
    case("log_ratio", "logprobs old_logprobs mask"),
    case("sequence_log_ratio", "log_ratio mask"),
    case("gspo_token_log_ratio", "log_ratio mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("truncated_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="sequence"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask"),
    case("masked_importance_weights", "old_logprobs rollout_logprobs=ref_logprobs mask", level="geometric"),
    case("off_policy_sequence_mask", "logprobs old_logprobs advantages mask"),
    case("top_entropy_mask", "entropy=ref_logprobs mask"),
    case("clipped_surrogate", "log_ratio advantages"),
    case("clipped_surrogate", "log_ratio advantages=token_advantages", dual_clip=3.0, epsilon_high=0.28),
    case("clipped_surrogate", "log_ratio advantages", epsilon_low=1.0, delta=1.5),
    case("sapo_surrogate", "log_ratio advantages"),
    case("sapo_surrogate", "log_ratio advantages=token_advantages"),
    case("policy_gradient_surrogate", "logprobs advantages"),
    case("cispo_surrogate", "logprobs log_ratio advantages", ratio_low=0.5, ratio_high=1.5),
    case("cispo_surrogate", "logprobs log_ratio advantages=token_advantages"),
    case("dppo_surrogate", "logprobs log_ratio advantages"),
    case("dppo_surrogate", "logprobs log_ratio advantages=token_advantages", divergence="kl"),
    case("geometric_mean_surrogate", "log_ratio advantages mask"),
    case("vespo_surrogate", "logprobs log_ratio advantages mask"),
    case("vespo_surrogate", "logprobs log_ratio advantages=token_advantages mask"),
    case("clip_cov_surrogate", "logprobs log_ratio advantages mask", fraction=1.0, covariance_low=0.1),
    case("kl_cov_surrogate", "logprobs log_ratio advantages=token_advantages mask", fraction=0.1),
    case("token_logprobs", "logits token_ids", temperature=0.7),
    case("token_entropy", "logits", temperature=0.7),
    case("linear_token_logprobs", "hidden weight token_ids", temperature=0.7),
    case("linear_token_logprobs", "hidden weight token_ids bias", chunk_size=5),
    case("linear_token_logprobs", "hidden weight token_ids", chunk_size=2, keep_logits=0.5),
    case("approximate_kl", "log_ratio mask"),
    case("clip_fraction", "clipped mask"),
    case("effective_sample_size", "log_ratio mask"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k1"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k2"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k3"),
    case("kl_estimate", "logprobs ref_logprobs", estimator="k3+"),
    case("aggregate", "values=logprobs mask", mode="token-mean"),
    case("aggregate", "values=logprobs mask", mode="seq-mean-token-mean"),
    case("aggregate", "values=logprobs mask", mode="seq-mean-token-sum"),
    case("aggregate", "values=logprobs mask denominator", mode="seq-mean-token-sum-norm"),
    case("aggregate_denominator", "mask", mode="token-mean"),
    case("aggregate_denominator", "mask", mode="seq-mean-token-mean"),
    case("aggregate_denominator", "mask", mode="seq-mean-token-sum-norm", max_length=9),
    case("grpo_loss", "logprobs old_logprobs advantages mask"),
    case("dr_grpo_loss", "logprobs old_logprobs advantages mask denominator"),
    case("dr_grpo_loss", "logprobs old_logprobs advantages mask", max_length=9),
    case("dapo_loss", "logprobs old_logprobs advantages=token_advantages mask"),
    case("cispo_loss", "logprobs old_logprobs advantages mask"),
    case("sapo_loss", "logprobs old_logprobs advantages mask"),
    case("gspo_loss", "logprobs old_logprobs advantages mask"),
    case("luspo_loss", "logprobs old_logprobs advantages mask"),
    case("gmpo_loss", "logprobs old_logprobs advantages mask denominator"),
    case("vespo_loss", "logprobs old_logprobs advantages mask"),
    case("clipo_rewards", "outcome=rewards embeddings success=two_correct groups=ordered"),
    case("clipo_rewards", "outcome=rewards embeddings success groups=layout", objective=clipo_ops.supcon_out),
]

# The contrastive functions lay ids out themselves, which reads the number of groups from the device: eager mode only.
EAGER_CASES = [
    *CASES,
    case("contrastive_loss", "embeddings success groups=ids", objective=clipo_ops.supcon_out),
    case("group_similarity", "embeddings success groups=ids"),
    case("center_by_group", "embeddings groups=ids"),
    case("noise_share", "embeddings success groups=ids"),
    case("process_gap", "rewards success process groups=ids"),
    case("degenerate_fraction", "rewards groups=ids"),
    case("clipo_rewards", "outcome=rewards embeddings success groups=ids", objective=clipo_ops.supcon_out),
]

# The first case of every function, for what is too slow to try on all.
ONE_OF_EACH = list({case.op: case for case in reversed(CASES)}.values())


def examples(dtype: torch.dtype, rollouts: int) -> dict[str, Any]:
    """All example tensors for a number of rollouts that is a multiple of 4.

    No two axes of a call have one size by chance: a dynamic graph would take it for a rule.
    """
    generator = torch.Generator().manual_seed(rollouts)
    length = rollouts // 2 + 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    place = torch.arange(rollouts)
    ids = place % (rollouts // 3)
    ids[0] = 99  # a singleton
    mask = torch.rand(rollouts, length, generator=generator) < 0.7
    mask[0], mask[1] = True, False
    candidates = (torch.arange(6) != 5).repeat(rollouts, 1)
    positives = candidates & (torch.arange(6) < place.unsqueeze(1) % 4 + 1)
    return {
        "hidden": normal(rollouts, length, 13),
        "mask": mask,
        "states": normal(rollouts, 11, 13),
        "logprobs": -normal(rollouts, length).abs(),
        "old_logprobs": -normal(rollouts, length).abs(),
        "ref_logprobs": -normal(rollouts, length).abs(),
        "log_ratio": normal(rollouts, length) / 2,
        "advantages": normal(rollouts),
        "token_advantages": normal(rollouts, length),
        "clipped": place.unsqueeze(1) % 3 > torch.arange(length) % 2,
        "weight": normal(17, 13),
        "bias": normal(17),
        "weights": normal(rollouts, length).relu(),
        "positions": place % (length + 1) - 1,
        "packed": normal(3 * rollouts, 13),
        "segment_ids": torch.arange(3 * rollouts) % 7 - 1,
        "process": place % 3 == 0,
        "logits": normal(rollouts, length, 17),
        "token_ids": torch.randint(0, 17, (rollouts, length), generator=generator),
        "denominator": torch.tensor(40.0),
        "rows": normal(rollouts, 6),
        "positives": positives,
        "one_positive": (place.unsqueeze(1) % 4) == torch.arange(6),
        "candidates": candidates,
        "embeddings": normal(rollouts, 13),
        "rewards": normal(rollouts),
        "loss": normal(rollouts).abs() * 3,
        "lengths": mask.sum(1),
        "success": place % 5 < 3,
        "two_correct": place % 4 < 2,
        "ids": ids,
        "layout": GroupLayout.from_ids(ids),
        "ordered": GroupLayout.from_size(rollouts, 4, device="cpu"),
        "reversed": GroupLayout.from_ids(-(place // 4)),
        "signals": normal(rollouts, 2),
    }
