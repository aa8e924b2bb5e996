"""A run that is killed, at whatever moment, goes on to the very same numbers."""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from .comparing import differing, read

KILL_AT = Path(__file__).with_name("kill_at.py")
KILLS = 20
STEPS = 5

Clipo = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def clipo() -> Iterator[Clipo]:
    """Runs `clipo train` in a process of its own, which is killed if asked for."""
    command = [sys.executable, "-W", "error", str(KILL_AT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None

        def order(*arguments: Any, **kill: Any) -> dict[str, Any]:
            parent.stdin.write(json.dumps({"arguments": ["train", *map(str, arguments)]} | kill) + "\n")
            parent.stdin.flush()
            answer: dict[str, Any] = json.loads(parent.stdout.readline())
            return answer

        yield order
        parent.stdin.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, untrained: Path) -> Path:
    """A run of about a second in which the policy, the head and the schedule all move."""
    folder = tmp_path_factory.mktemp("resume")
    data = folder / "sums.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a % 2)} for a in range(4) for b in range(6)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    values = {
        "steps": STEPS,
        "model": {"path": str(untrained)},
        "data": {"train": str(data), "verifier": "exact_match"},
        "rollout": {"batch_size": 64, "group_size": 16, "max_new_tokens": 1, "dynamic_sampling": True},
        "optimizer": {"learning_rate": 1e-2, "schedule": "cosine", "warmup_updates": 2, "minibatch_size": 32},
        "clipo": {"dim": 16},
        "checkpoint": {"every": 1},
        "evaluation": {"sets": {"sums": str(data)}, "limit": 8, "every": 2, "temperature": 1.0},
    }
    values["optimizer"] |= {"micro_batch_size": 32}
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def unbroken(clipo: Clipo, config: Path) -> tuple[Path, float]:
    """A run that nothing happened to, and how long it took."""
    folder = config.with_name("unbroken")
    done = clipo(config, "--run_dir", folder)
    assert done["status"] == 0, done["error"]
    return folder, done["seconds"]


def test_the_run_is_worth_comparing(unbroken: tuple[Path, float], untrained: Path) -> None:
    found = read(unbroken[0])
    before = load_file(untrained / "model.safetensors")
    assert all(not value.equal(before[name]) for name, value in found["final"].items() if "weight" in name)
    assert found["metrics"][-1]["contrastive/anchor_fraction"] > 0
    assert len({row["policy/learning_rate"] for row in found["metrics"][1:]}) == STEPS
    assert {path.name for path in unbroken[0].joinpath("checkpoints").iterdir()} == {"step-00000004", "step-00000005"}
    assert len(found["optimizer.pt"]["optimizer"]["state"]) == len(found["final"])
    position = json.loads((unbroken[0] / "checkpoints" / "step-00000005" / "clipo.json").read_text())
    assert position["prompts"] > STEPS * 64 // 16  # it has dropped some


def test_a_run_killed_at_twenty_random_moments(clipo: Clipo, config: Path, unbroken: tuple[Path, float]) -> None:
    expected, rng, kills = read(unbroken[0]), random.Random(0), 0
    while kills < KILLS:
        folder = Path(tempfile.mkdtemp(dir=config.parent)) / "run"
        status = None
        while status != 0:
            kill = {"seconds": rng.uniform(0, unbroken[1])} if kills < KILLS else {}
            ended = clipo(config, "--run_dir", folder, "--resume", **kill)
            status = ended["status"]
            assert status in (0, -signal.SIGKILL), ended["error"]
            kills += status != 0
        assert differing(read(folder), expected) == []


MOMENTS = {
    "before the folder": ("clipo_train.trainer:check_run_dir", 1, True),
    "an empty folder": ("clipo_train.trainer:write_whole", 1, False),
    "no checkpoint yet": ("clipo_train.metrics:MetricsLog.log", 2, True),
    "sampled": ("clipo_train.collector:Collector.collect", 3, True),
    "head updated, policy not": ("clipo_train.learner:Learner.update", 3, False),
    "half of the mini-batches": ("clipo_train.learner:Learner._accumulate", 6, True),
    "updated, not logged": ("clipo_train.metrics:MetricsLog.log", 4, False),
    "logged, not saved": ("clipo_train.metrics:MetricsLog.log", 4, True),
    "a checkpoint without weights": ("clipo_train.checkpoint:save_file", 3, False),
    "half a checkpoint": ("clipo_train.checkpoint:_signature", 3, False),
    "a checkpoint without its name": ("clipo_train.folders:_flush", 5, True),
    "a checkpoint too many": ("clipo_train.checkpoint:_tidy", 3, False),
    "a dropped checkpoint": ("clipo_train.checkpoint:drop", 1, False),
    "half of a dropped checkpoint": ("os:unlink", 3, True),
    "all trained, no final policy": ("clipo_train.trainer:Trainer.finish", 1, False),
    "half of the final policy": ("transformers:PreTrainedModel.save_pretrained", 1, True),
    "no report": ("clipo_train.trainer:write_report", 1, False),
}
"""Where a run is killed: at which call, at what time it is made, and whether it is done."""

RESUMING = {
    "weights without their optimizer": ("clipo_train.checkpoint:set_model_state_dict", 1, True),
    "before the metrics go back": ("clipo_train.metrics:MetricsLog.rewind", 1, False),
    "while the metrics go back": ("pathlib:Path.replace", 2, False),
    "the completions not yet": ("pathlib:Path.replace", 2, True),
}
"""The same while it resumes."""


@pytest.mark.parametrize("moment", [*MOMENTS, *RESUMING])
def test_a_run_killed_at_the_worst_moment(
    moment: str, clipo: Clipo, config: Path, unbroken: tuple[Path, float]
) -> None:
    folder = config.with_name(moment.replace(" ", "-"))
    kills = [MOMENTS[moment]] if moment in MOMENTS else [MOMENTS["logged, not saved"], RESUMING[moment]]
    for call, count, done in kills:
        ended = clipo(config, "--run_dir", folder, "--resume", call=call, count=count, done=done)
        assert ended["status"] == -signal.SIGKILL, ended["error"]
    resumed = clipo(config, "--run_dir", folder, "--resume")
    assert resumed["status"] == 0, resumed["error"]
    assert differing(read(folder), read(unbroken[0])) == []


REPLACING = {
    "the old policy half removed": ("os:rmdir", 3, False),
    "the old policy set aside": ("pathlib:Path.rename", 3, True),
    "the new policy named, the old not removed": ("pathlib:Path.rename", 4, True),
}
"""Where a run that is extended by a step is killed, while it writes that step's checkpoint or its final policy."""


@pytest.mark.parametrize("moment", REPLACING)
def test_an_extended_run_killed_while_the_old_policy_is_replaced(
    moment: str, clipo: Clipo, config: Path, unbroken: tuple[Path, float]
) -> None:
    folder, whole = (config.with_name(f"{name}-{moment.replace(' ', '-')}") for name in ("broken", "extended"))
    longer = ["--resume", "--steps", STEPS + 1]
    for copy in (folder, whole):
        shutil.copytree(unbroken[0], copy)
    done = clipo(config, "--run_dir", whole, *longer)
    assert done["status"] == 0, done["error"]
    call, count, after = REPLACING[moment]
    ended = clipo(config, "--run_dir", folder, *longer, call=call, count=count, done=after)
    assert ended["status"] == -signal.SIGKILL, ended["error"]
    resumed = clipo(config, "--run_dir", folder, *longer)
    assert resumed["status"] == 0, resumed["error"]
    assert differing(read(folder), read(whole)) == []
