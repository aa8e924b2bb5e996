"""verl finds the plugin by itself, in a process of its own; and where it does not, somebody says so."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NoReturn

import pytest
from omegaconf import DictConfig

from clipo_train.adapters.verl import check, selfcheck
from clipo_train.adapters.verl.advantages import ESTIMATORS
from clipo_train.adapters.verl.losses import LOSSES
from clipo_train.errors import ConfigError


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)


def test_a_fresh_process_has_all_names_after_importing_verl() -> None:
    code = (
        "import verl, sys; assert 'clipo_train.adapters.verl.plugin' in sys.modules\n"
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "from verl.workers.engine import EngineRegistry\n"
        f"[get_adv_estimator_fn(name) for name in {list(ESTIMATORS)}]\n"
        f"[get_policy_loss_fn(name) for name in {list(LOSSES)}]\n"
        "engine = EngineRegistry.get_engine_cls('clipo_language_model', 'fsdp2')\n"
        "print(get_trainer_cls('clipo').__name__, engine.__name__)"
    )
    done = run("-c", code, VERL_USE_EXTERNAL_PLUGINS="auto")
    assert done.stdout.split() == ["ClipoTrainer", "ClipoEngine"], done.stderr


def test_the_command_prints_what_is_registered() -> None:
    done = run("-m", "clipo_train.adapters.verl")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert lines["verl"] == selfcheck.TESTED
    assert lines["estimators"].split(", ") == list(ESTIMATORS)
    assert lines["losses"].split(", ") == list(LOSSES)
    assert lines["trainers"] == "clipo"
    assert lines["engines"] == "clipo_language_model on fsdp, clipo_language_model on fsdp2"


def test_a_plugin_that_fails_is_silent_in_verl_and_not_in_the_command(tmp_path: Path) -> None:
    """verl imports without a word; the command says what went wrong, with the extra to install."""
    (tmp_path / "transfer_queue.py").write_text("raise ModuleNotFoundError(\"No module named 'transfer_queue'\")")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("-c", "import verl", PYTHONPATH=path)
    assert (done.returncode, "clipo" in done.stderr) == (0, False)
    done = run("-m", "clipo_train.adapters.verl", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: verl.plugins: expected what the trainer needs, got No module named 'transfer_queue'; "
        "pip install 'clipo[verl]'"
    )


def test_plugins_switched_off_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "others")
    with pytest.raises(ConfigError, match=r"^VERL_USE_EXTERNAL_PLUGINS: expected 'auto' or 'clipo' .* got 'others'$"):
        check()
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "others, clipo")
    assert check().trainers == ("clipo",)


def test_a_package_without_its_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        names: tuple[str, ...] = ()

    monkeypatch.setattr(selfcheck, "entry_points", lambda group: Nothing)
    with pytest.raises(ConfigError, match=r"^verl.plugins: expected the entry point 'clipo', got none"):
        check()


def test_a_plugin_that_loads_only_now_is_no_comfort_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, selfcheck.PLUGIN)
    with pytest.raises(ConfigError, match=r"^verl.plugins: expected .*plugin loaded with verl, got it later"):
        check()


def test_the_trainer_checks_before_anything_else(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipo_train.adapters.verl.trainer import ClipoTrainer

    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    with pytest.raises(ConfigError, match=r"^VERL_USE_EXTERNAL_PLUGINS"):
        ClipoTrainer(configure())


def test_another_version_of_verl_warns_with_the_tested_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "version", lambda _: "0.12.0")
    with pytest.warns(UserWarning, match=r"tested with verl 0\.9\.1, got 0\.12\.0"):
        selfcheck.warn_if_untested()


def test_a_missing_verl_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(selfcheck, "version", missing)
    with pytest.raises(ConfigError, match=r"^verl: expected version 0\.9\.1, got none; pip install 'clipo\[verl\]'$"):
        check()


def test_hydra_composes_a_configuration_with_our_names(configure: Any) -> None:
    config: DictConfig = configure()
    assert config.trainer.v1.clipo == {"success": "acc", "dim": 8, "objective": "supcon_out"}
    assert config.algorithm.adv_estimator in ESTIMATORS
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode in LOSSES
