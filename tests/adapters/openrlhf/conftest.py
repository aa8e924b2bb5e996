"""OpenRLHF on a CPU: stand-ins for vLLM and flash-attn, a policy, rollouts, arguments, and workers in a local Ray."""

# ruff: noqa: E402 - what stands in must be on the path before OpenRLHF is imported

import json
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ON_PATH = str(Path(__file__).with_name("on_path"))
sys.path.insert(0, ON_PATH)
os.environ |= {
    "DS_ACCELERATOR": "cpu",
    "PYTHONPATH": os.pathsep.join([ON_PATH, os.environ.get("PYTHONPATH", "")]),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what OpenRLHF imports warns of what that imports
    import openrlhf.trainer.ppo_trainer_async

import openrlhf.utils
import pytest
import ray
import torch
from openrlhf.trainer import ppo_trainer, ppo_trainer_async
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from openrlhf.trainer.ray import ppo_actor
from openrlhf.trainer.ray.launcher import RayActorGroup
from torch import Tensor, nn

from clipo_train.adapters.openrlhf.__main__ import main
from clipo_train.adapters.openrlhf.policy import behind_remote

GROUP, ROLLOUTS = 4, 24


def pytest_configure(config: pytest.Config) -> None:
    """Ray leaves files and processes to their end, and torchdata calls what torch no longer wants called."""
    for warning in ("ignore::ResourceWarning", "ignore:'set_vital' is deprecated:UserWarning"):
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(scope="session")
def policy(untrained: Path) -> Path:
    return untrained


def rollouts(seed: int = 0, *, scores: bool = True) -> list[Experience]:
    """What OpenRLHF makes of vLLM's responses: groups of rollouts, some of two turns, about half of them right."""
    rng = random.Random(seed)
    experiences = []
    for place in range(ROLLOUTS):
        prompt = [place // GROUP + 1] * (place // GROUP + 2)
        tokens, ranges = list(prompt), []
        for turn in range(1 + place % 3 // 2):
            tokens += [0, 1] if turn else []  # what a tool says
            ranges.append((len(tokens), len(tokens) + rng.randint(2, 6)))
            tokens += [rng.randrange(15) for _ in range(*ranges[-1])]
        right = rng.random() < 0.5
        response = {
            "observation_tokens": tokens,
            "action_ranges": ranges,
            "rollout_log_probs": None,
            "reward": float(right),
            "scores": float(right) if scores else None,
            "truncated": place % 5 == 0,
            "prompt": str(place // GROUP),
            "label": "",
        }
        experiences.append(SamplesGenerator._process_response_into_experience(None, response, max_len=64))
    return experiences


@torch.no_grad()
def alone(model: nn.Module, samples: list[Experience]) -> Tensor:
    """The mean of each rollout's last hidden states at the tokens of its action ranges, without padding."""
    rows = []
    for sample in samples:
        states = model(sample.sequences, output_hidden_states=True).hidden_states[-1][0]
        written = [place + 1 for place, wrote in enumerate(sample.action_mask[0].tolist()) if wrote]
        rows.append(states[written].mean(0))
    return torch.stack(rows)


class ParsedError(Exception):
    """Carries the arguments out of OpenRLHF's command line."""


@pytest.fixture(scope="session")
def arguments(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """OpenRLHF's arguments, as its own command line and ours read them."""
    prompts = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"input": f"{number}+1="}) + "\n" for number in range(8)))
    base = {
        "--actor.model_name_or_path": policy,
        "--actor.num_gpus_per_node": 2,
        "--reward.remote_url": "reward.py",
        "--data.prompt_dataset": prompts,
        "--data.max_len": 64,
        "--algo.advantage.estimator": "group_norm",
        "--algo.kl.init_coef": 0,
        "--ckpt.path": "nowhere",
        "--rollout.n_samples_per_prompt": GROUP,
        "--rollout.batch_size": ROLLOUTS // GROUP,
        "--rollout.micro_batch_size": 5,
        "--clipo.dim": 8,
        "--clipo.objective": "supcon_out",
    }

    def arguments(*flags: str, **settings: Any) -> Any:
        values = base | {"--" + name.replace("__", "."): value for name, value in settings.items()}
        command_line = [str(part) for pair in values.items() if pair[1] is not None for part in pair]
        with pytest.MonkeyPatch.context() as patch:
            for module, name in [
                (ppo_actor, "PolicyModelActor"),
                (ppo_trainer, "PPOTrainer"),
                (ppo_trainer_async, "PPOTrainerAsync"),
            ]:
                patch.setattr(module, name, getattr(module, name))
            patch.setattr(sys, "argv", sys.argv)
            patch.setattr(ray, "is_initialized", lambda: True)
            patch.setattr(openrlhf.utils, "get_strategy", capture)
            status = None
            try:
                status = main([*command_line, *flags])
            except ParsedError as parsed:
                return parsed.args[0]
        return status

    return arguments


def capture(args: Any) -> None:
    """In the place where OpenRLHF would start to train."""
    found = (ppo_actor.PolicyModelActor, ppo_trainer.PPOTrainer, ppo_trainer_async.PPOTrainerAsync)
    args.classes = [behind_remote(remote) for remote in found]
    raise ParsedError(args)


@pytest.fixture(scope="session")
def _ray() -> Iterator[None]:
    """A local Ray with room for two groups of two workers; the GPUs are only counted."""
    ray.init(num_cpus=6, num_gpus=4, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def workers(policy: Path, _ray: None) -> RayActorGroup:
    """Two policy workers."""
    from tiny_policy import TinyPolicy

    group = RayActorGroup(1, 2, ray.remote(num_gpus=1)(TinyPolicy))
    ray.get(group.async_init_model_from_pretrained(str(policy)))
    return group


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
