"""The trainer on verl's own driver: rollouts in a TransferQueue, an engine in this process, a whole training step."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import transfer_queue
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import LlamaForCausalLM
from verl.checkpoint_engine import CheckpointEngineManager
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.engine_workers import ActorRolloutRefWorker

from clipo_ops import contrastive_loss, contrastive_reward, grpo_advantages, supcon_out
from clipo_train.adapters.verl.trainer import ClipoTrainer
from clipo_train.errors import ConfigError

CORRECT = {"a": [True, True, False, False], "b": [True, True, True, False]}
"""Of four rollouts each of two prompts."""


@pytest.fixture(scope="module")
def _queue() -> Iterator[None]:
    """verl's store of rollouts: one controller and one unit, as actors of a local Ray."""
    ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    storage = {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}
    transfer_queue.init(OmegaConf.create(storage))
    yield
    transfer_queue.close()
    ray.shutdown()


@pytest.fixture
def trainer(configure: Callable[..., DictConfig], _process_group: None, _queue: None) -> Callable[..., ClipoTrainer]:
    """A trainer as verl's `_setup` leaves it, but for the servers that sample: its workers are in this process."""

    def started(*overrides: str) -> ClipoTrainer:
        subject = ClipoTrainer(configure(*overrides))
        subject._init_tokenizer()
        subject._init_resource_pool_mgr()
        config = subject.config.actor_rollout_ref
        worker = ActorRolloutRefWorker(config, role="actor")
        worker.init_model()
        worker._dispatch_info = {"actor": [0]}
        subject.actor_rollout_wg = worker
        engine = omega_conf_to_dataclass(config.rollout.checkpoint_engine)
        subject.checkpoint_manager = CheckpointEngineManager(engine, actor_wg=worker, replicas=[])
        subject.reward_loop_manager = type("Rewards", (), {"reward_loop_worker_handles": []})
        subject.train_dataloader = StatefulDataLoader([0, 1, 2, 3])
        subject.global_steps, subject.timing_raw, subject.curr_step_profile = 1, {}, False
        return subject

    return started


def sampled(uid: str, session: int, correct: bool) -> dict[str, Any]:
    """One rollout, of another length than the others of its prompt, as verl's agent loop puts it into the queue."""
    response = torch.randint(3, 32, (2 + session,), generator=torch.Generator().manual_seed(session + ord(uid)))
    output = AgentLoopOutput(
        prompt_ids=[3, 4, 5, 6][: 2 + ord(uid) % 2],
        response_ids=response.tolist(),
        response_mask=[1] * len(response),
        response_logprobs=[-3.0] * len(response),
        reward_score=float(correct) - 0.25,  # a score that is not the verdict
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={"reward_extra_info": {"acc": correct}},
    )
    fields = output.as_dict()
    tokens = torch.cat([fields["prompts"], fields["responses"]])
    more = {"loss_mask": fields["response_mask"], "input_ids": tokens, "position_ids": torch.arange(len(tokens))}
    return fields | more | {"multi_modal_inputs": {}, "uid": uid}


def put(correct: dict[str, list[bool]] = CORRECT) -> dict[str, dict[str, Any]]:
    """Rollouts of these prompts in the queue, which had none."""
    left = list(transfer_queue.kv_list("train").get("train", {}))
    if left:
        transfer_queue.kv_clear(keys=left, partition_id="train")
    rows = {f"{uid}_{i}_0": sampled(uid, i, ok) for uid, all_ in correct.items() for i, ok in enumerate(all_)}
    tags = [
        {"status": "success", "global_steps": 1, "min_global_steps": 0, "max_global_steps": 0}
        | {
            "prompt_len": len(row["prompts"]),
            "response_len": len(row["responses"]),
            "seq_len": len(row["input_ids"]),
        }
        for row in rows.values()
    ]
    fields = list_of_dict_to_tensordict(list(rows.values()))
    transfer_queue.kv_batch_put(keys=list(rows), fields=fields, tags=tags, partition_id="train")
    prompts = [{"is_prompt": True, "status": "finished", "global_steps": 1} for _ in correct]
    transfer_queue.kv_batch_put(keys=list(correct), tags=prompts, partition_id="train")
    return rows


def stored(keys: list[str], *fields: str) -> Any:
    return transfer_queue.kv_batch_get(keys=keys, partition_id="train", select_fields=list(fields))


def expected_rewards(rows: dict[str, dict[str, Any]], weight: Tensor, model: Path) -> Tensor:
    """Contrastive rewards by `clipo_ops`, each rollout's hidden states by itself."""
    policy = LlamaForCausalLM.from_pretrained(model)
    with torch.no_grad():
        hidden = [policy.model(row["input_ids"].unsqueeze(0))[0][0, len(row["prompts"]) :] for row in rows.values()]
    pooled = torch.stack([states.mean(0) for states in hidden])
    success = torch.tensor([row["extra_fields"]["reward_extra_info"]["acc"] for row in rows.values()])
    groups = torch.tensor([ord(row["uid"]) for row in rows.values()])
    loss = contrastive_loss(pooled @ weight.T, success, groups, objective=supcon_out, reduction="none")
    return contrastive_reward(loss)


def parameters(trainer: ClipoTrainer) -> Tensor:
    """The policy's, in one vector."""
    policy = trainer.actor_rollout_wg.actor.engine.module
    return torch.cat([each.full_tensor().detach().flatten().clone() for each in policy.parameters()])


def test_a_whole_step_is_that_of_clipo_ops(trainer: Callable[..., ClipoTrainer], model: Path) -> None:
    """Seven rollouts, so that verl fills the batch up to eight with one that takes no part."""
    subject = trainer()
    rows = put(CORRECT | {"b": CORRECT["b"][:3]})
    assert subject.head is not None
    weight = subject.head.projection.weight.detach().clone()
    before = parameters(subject)
    metrics: dict[str, Any] = {}
    batch = subject._step_once(metrics, subject.timing_raw, 2)

    assert len(batch.keys) == 8
    contrastive = expected_rewards(rows, weight, model)
    data = stored(list(rows), "rm_scores", "token_level_rewards", "advantages")
    scores = torch.stack([row.sum() for row in data["rm_scores"].unbind()])
    assert scores.tolist() == [row["rm_scores"].sum().item() for row in rows.values()]
    total = torch.stack([row.sum() for row in data["token_level_rewards"].unbind()])
    torch.testing.assert_close(total - scores, contrastive, rtol=0, atol=1e-5)
    assert (contrastive < 0).sum() == 2  # of prompt a; all of b's are correct
    advantages = grpo_advantages(scores + contrastive, torch.tensor([ord(row["uid"]) for row in rows.values()]))
    for row, advantage in zip(data["advantages"].unbind(), advantages, strict=True):
        torch.testing.assert_close(row, advantage.expand_as(row), rtol=0, atol=1e-5)

    assert metrics["rollout/accuracy"] == pytest.approx(5 / 7)
    assert metrics["reward/contrastive"] == pytest.approx(contrastive.mean().item(), abs=1e-5)
    assert metrics["contrastive/anchor_fraction"] == pytest.approx(2 / 7)
    assert all(math.isfinite(value) for name, value in metrics.items() if name.startswith("contrastive/"))
    assert subject.timing_raw["contrastive"] > 0
    assert subject.head.steps == 1
    assert not subject.head.projection.weight.equal(weight)
    assert not parameters(subject).equal(before)

    subject._compute_metrics(batch, metrics, {"step": 1.0, "gen": 1.0}, 1, 0)
    assert metrics["critic/score/mean"] == pytest.approx(scores.mean().item())
    assert metrics["critic/rewards/mean"] == pytest.approx((scores + contrastive).mean().item(), abs=1e-5)


def test_head_warm_up_leaves_the_policy_alone(trainer: Callable[..., ClipoTrainer]) -> None:
    subject = trainer("+trainer.v1.clipo.warmup_steps=1")
    for warming_up in (True, False):
        put()
        metrics: dict[str, Any] = {}
        subject._step_once(metrics, subject.timing_raw, 2)
        assert ("actor/grad_norm" in metrics) is not warming_up
    assert subject.head is not None
    assert subject.head.steps == 2


def test_without_clipo_it_is_verls_trainer(trainer: Callable[..., ClipoTrainer]) -> None:
    subject = trainer("+trainer.v1.clipo.enabled=false")
    assert subject.config.actor_rollout_ref.model.get("model_type") is None
    rows, metrics = put(), {}
    subject._step_once(metrics, subject.timing_raw, 2)
    assert "reward/contrastive" not in metrics
    assert "pooled_hidden" not in stored(list(rows), "pooled_hidden", "advantages").keys()  # noqa: SIM118


def test_checkpoints_hold_the_head_and_resume_to_the_same_rewards(trainer: Callable[..., ClipoTrainer]) -> None:
    subject = trainer("trainer.v1.clipo.objective=infonce")
    put()
    subject._step_once({}, subject.timing_raw, 2)
    subject._save_checkpoint()
    resumed = trainer("trainer.v1.clipo.objective=infonce", "+trainer.v1.clipo.seed=5")
    resumed._load_checkpoint()
    assert resumed.global_steps == 1
    results = []
    for each in (subject, resumed):
        rows = put()
        each._step_once({}, each.timing_raw, 2)
        results.append(torch.cat(list(stored(list(rows), "token_level_rewards")["token_level_rewards"].unbind())))
    assert results[0].equal(results[1])
    path = Path(subject.config.trainer.default_local_dir, "global_step_1")
    named = trainer("trainer.resume_mode=resume_path", f"trainer.resume_from_path={path}")
    named._load_checkpoint()
    assert named.head is not None
    assert named.head.steps == 1
    (path / "clipo_head.pt").unlink()
    with pytest.raises(
        ConfigError, match=r"^trainer.resume_mode: expected a checkpoint with clipo_head.pt, got '.*_1'$"
    ):
        named._load_checkpoint()


def test_the_reference_pass_does_not_pool(trainer: Callable[..., ClipoTrainer]) -> None:
    """Its hidden states would take the place of the policy's, in verl's store."""
    subject = trainer()
    put()
    batch, _ = subject.replay_buffer.sample(global_steps=1, partition_id="train", batch_size=2)
    asked: list[bool] = []
    engine = subject.actor_rollout_wg.actor.engine
    forward = engine.forward_step

    def spied(micro_batch: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append("clipo_pool" in micro_batch.keys())  # noqa: SIM118
        return forward(micro_batch, *args, **kwargs)

    engine.forward_step = spied
    batch = subject._compute_old_log_prob(batch, {})
    assert set(asked) == {True}
    asked.clear()
    subject.ref_in_actor = False
    subject.ref_policy_wg = type("Reference", (), {"compute_ref_log_prob": subject.actor_rollout_wg.compute_log_prob})
    subject._compute_ref_log_prob(batch, {})
    assert set(asked) == {False}


def test_it_is_the_synchronous_trainer_wherever_verl_asks(configure: Callable[..., DictConfig]) -> None:
    subject = ClipoTrainer(configure())
    assert subject.trainer_mode == "sync"
    assert type(subject.replay_buffer) is ReplayBuffer


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.actor.strategy=megatron", r"^actor_rollout_ref.actor.strategy: expected fsdp or fsdp2"),
        ("algorithm.rollout_correction.bypass_mode=true", r"^algorithm.rollout_correction.bypass_mode: expected false"),
        ("trainer.v1.clipo.success=null", r"^trainer.v1.clipo.success: expected who is correct"),
    ],
)
def test_the_trainer_refuses_what_gives_no_rewards(
    override: str, message: str, configure: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipoTrainer(configure(override))
