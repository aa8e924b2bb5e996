"""The real trainer with vLLM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.evaluation import evaluate
from clipo_train.report import load_metrics
from clipo_train.rollout import vllm
from clipo_train.trainer import Trainer
from clipo_train.types import Example, Verdict

GAP = "rollout/engine_logprob_gap"


def early_seven(example: Example, completion: str) -> Verdict:
    """Right if there is a 7 in the first four characters: what an untrained policy learns in a few steps."""
    right = "7" in completion[:4]
    return Verdict(right, float(right))


@pytest.fixture
def config_file(tmp_path: Path, policy_folder: Path) -> Callable[..., Path]:
    """Writes a configuration, with sections updated by keyword."""

    def write(**sections: Any) -> Path:
        values: dict[str, Any] = {
            "run_dir": str(tmp_path / "run"),
            "steps": 2,
            "model": {"path": str(policy_folder)},
            "data": {"train": "arithmetic:train", "verifier": f"{Path(__file__).stem}:early_seven"},
            "rollout": {"engine": "vllm", "batch_size": 64, "group_size": 8, "max_new_tokens": 8},
            "optimizer": {"learning_rate": 1e-2, "minibatch_size": 32, "micro_batch_size": 32},
            "clipo": {"dim": 16},
            "loss": {"rollout_correction": "truncated"},
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture(autouse=True)
def _verifier_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


def train(config: Path, *overrides: str) -> Path:
    return Trainer(load_config(config, overrides)).train().parent


def test_the_policy_learns_on_its_own_samples(config_file: Callable[..., Path]) -> None:
    config = config_file(steps=8, evaluation={"sets": {"heldout": "arithmetic:heldout"}, "limit": 32})
    run = train(config)
    metrics = load_metrics(run)[1:]
    assert len(metrics) == 8
    assert metrics[-1]["rollout/accuracy"] > metrics[0]["rollout/accuracy"] + 0.3
    for row in metrics:
        assert 0 < row[GAP] <= row[f"{GAP}_max"] < 1e-3
        assert row["policy/grad_norm"] > 0 or row["groups/degenerate"] == 1
    again = evaluate(load_config(config, ["--model.path", str(run / "final")]))
    assert again == {name: value for name, value in metrics[-1].items() if name.startswith("eval/")}


def test_a_broken_off_run_resumes_to_the_same_parameters(
    config_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which also says that two runs of a seed are equal."""
    config = config_file(
        steps=4,
        checkpoint={"every": 2},
        evaluation={"sets": {"heldout": "arithmetic:heldout"}, "limit": 8, "every": 2, "temperature": 1.0},
    )
    unbroken = load_file(train(config, "--run_dir", str(tmp_path / "unbroken")) / "final" / "model.safetensors")

    step = Trainer._step

    def break_off(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "_step", break_off)
    broken = ("--run_dir", str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        train(config, *broken)
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).parent)
    resumed = load_file(train(config, *broken, "--resume") / "final" / "model.safetensors")
    assert all(value.equal(resumed[name]) for name, value in unbroken.items())
    rows = [load_metrics(tmp_path / name) for name in ("unbroken", "broken")]
    untimed = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in run] for run in rows]
    assert untimed[0] == untimed[1]


def test_a_sync_that_passes_over_the_head_stops_the_run(
    config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vLLM's own reload does on a CPU to tied embeddings."""
    monkeypatch.setattr(vllm, "_pack_head", lambda model: None)
    with pytest.raises(ConfigError, match=r"^rollout\.logprob_tolerance: expected .* within 0\.001"):
        train(config_file())


def test_an_update_without_sync_stops_the_run(
    config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = vllm.VllmEngine.sync, []

    def only_once(self: vllm.VllmEngine) -> None:
        if not calls:
            sync(self)
        calls.append(1)

    monkeypatch.setattr(vllm.VllmEngine, "sync", only_once)
    config = config_file()
    with pytest.raises(ConfigError, match=r"^rollout\.logprob_tolerance: expected .* within 0\.001"):
        train(config)
    assert len(load_metrics(load_config(config).run_dir)) == 2, "it got through the first step, and no further"
