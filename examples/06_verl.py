"""CLIPO in verl 0.9.1, as far as a machine without a GPU goes: what the plugin registers, and one step on the driver.

    python -W ignore examples/06_verl.py

Needs `pip install 'clipo[verl]'` (`make test-verl` makes such an environment), and no network. On GPUs the same is two
lines of your command, `trainer.v1.trainer_mode=clipo +trainer.v1.clipo.success=acc`; see docs/verl.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.config import ActorConfig

from clipo_ops import token_level_rewards
from clipo_train.adapters.verl import check
from clipo_train.adapters.verl.rewards import contrastive_rewards, read_config, successes
from clipo_train.head import ClipoHead

console = Console()

OVERRIDES = """
    trainer.v1.trainer_mode=clipo +trainer.v1.clipo.success=acc
    +trainer.v1.clipo.objective=supcon_out +trainer.v1.clipo.dim=8
    algorithm.adv_estimator=clipo_grpo actor_rollout_ref.actor.policy_loss.loss_mode=clipo_clipped
"""
"""Words of the command line: `python -m verl.trainer.main_ppo ...`, and all that you have there already."""

HIDDEN, RIGHT = 16, {"a": [True, True, True, False], "b": [True, True, True, True]}


def registered_table() -> Table:
    """`import verl` has loaded the plugin by its entry point. Verl is silent if that fails; `check` is not."""
    table = Table("registry", "names of ours", title="what verl has now")
    for name, value in check()._asdict().items():
        table.add_row(name, value if isinstance(value, str) else "\n".join(value))
    return table


def compose_config() -> DictConfig:
    """Verl's own configuration, with our names in it."""
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", OVERRIDES.split())


def sample_batch() -> TensorDict:
    """Eight rollouts as verl's driver has them: prompts' ids, what the reward function gave, and what our engine adds.

    `pooled_hidden` is the mean of the last hidden states, made here from a generator instead of a model: right rollouts
    have something in common, but the third of each prompt went another way.
    """
    generator = torch.Generator().manual_seed(0)
    common, other = torch.randn(2, HIDDEN, generator=generator)
    rows: list[dict[str, Any]] = []
    for uid, verdicts in RIGHT.items():
        for place, right in enumerate(verdicts):
            way = common if right and place != 2 else other
            pooled = way + 0.3 * torch.randn(HIDDEN, generator=generator)
            extra = {"reward_extra_info": {"acc": right}}
            rows.append(
                {"uid": uid, "score": torch.tensor(float(right)), "pooled_hidden": pooled, "extra_fields": extra}
            )
    return list_of_dict_to_tensordict(rows)


def advantages(total: Tensor, mask: Tensor, uids: list[str], estimator: str) -> Tensor:
    """Verl's own function, which looks the estimator up by its name."""
    fields = {"token_level_rewards": token_level_rewards(total, mask), "response_mask": mask.long()}
    batch = DataProto(TensorDict(fields, len(uids)), non_tensor_batch={"uid": np.array(uids, dtype=object)})
    return compute_advantage(batch, adv_estimator=estimator, config=AlgoConfig()).batch["advantages"]


def policy_loss(name: str, advantage: Tensor, mask: Tensor) -> Tensor:
    """Verl's call of a policy loss, on log-probabilities that moved a little since the rollouts were sampled."""
    generator = torch.Generator().manual_seed(1)
    old = -torch.rand(mask.shape, generator=generator)
    new = old + 0.2 * torch.randn(mask.shape, generator=generator)
    actor = ActorConfig(strategy="fsdp2", rollout_n=4, ppo_micro_batch_size_per_gpu=4, clip_ratio_high=0.28)
    loss, _ = get_policy_loss_fn(name)(
        old_log_prob=old, log_prob=new, advantages=advantage, response_mask=mask, config=actor, rollout_is_weights=None
    )
    return loss


def main() -> None:
    console.print(registered_table())
    config = compose_config()
    settings = read_config(OmegaConf.to_container(config.trainer.v1.clipo))  # one line for what is wrong with it
    console.print(f"trainer.v1.clipo: success={settings.success}, objective={settings.objective}, dim={settings.dim}")

    # The driver's step. The trainer does the same with what its workers have put into verl's queue.
    data, keys = sample_batch(), [f"{uid}_{place}_0" for uid, all_ in RIGHT.items() for place in range(len(all_))]
    real = torch.ones(len(keys), dtype=torch.bool)  # False for what verl fills a batch up with
    scores = data["score"]
    success = successes(data, scores, real, settings)
    head = ClipoHead(HIDDEN, settings, seed=settings.seed, device="cpu")
    contrastive = contrastive_rewards(head, data, success, real, keys)

    mask = torch.arange(5) < torch.tensor([5, 4, 3, 5, 2, 5, 4, 3]).unsqueeze(1)
    uids = [key[0] for key in keys]
    with_clipo = advantages(scores + contrastive, mask, uids, config.algorithm.adv_estimator)
    without = advantages(scores, mask, uids, "grpo")
    columns = ("rollout", "right", "score", "contrastive", "advantage", "by verl's grpo without")
    table = Table(*columns, title="a step on the driver")
    for row, key in enumerate(keys):
        numbers = (scores[row], contrastive[row], with_clipo[row, 0], without[row, 0])
        table.add_row(key, "yes" if success[row] else "no", *(f"{number:+.3f}" for number in numbers))
    console.print(table)
    console.print("Of a's right ones, the third went another way and gets least. Of b all are right: CLIPO is silent.")
    console.print("contrastive/...: " + ", ".join(f"{name} {value:.2f}" for name, value in head.metrics.items()))

    mine, theirs = (policy_loss(name, with_clipo, mask) for name in ("clipo_clipped", "vanilla"))
    console.print(f"policy loss: clipo_clipped {mine:.6f}, verl's vanilla {theirs:.6f}")


if __name__ == "__main__":
    main()
