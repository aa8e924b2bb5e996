"""The command line: what it takes, what it puts in the place of OpenRLHF's classes, and what it refuses in one line."""

import importlib
import runpy
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
import ray
import verdicts

import clipo_train.adapters.openrlhf as adapter
from clipo_train.adapters.openrlhf import ClipoPolicyActor, ClipoPPOTrainer, ClipoPPOTrainerAsync
from clipo_train.adapters.openrlhf.__main__ import main
from clipo_train.errors import ConfigError


def test_clipos_arguments_are_taken_and_openrlhfs_are_left(arguments: Callable[..., Any]) -> None:
    args = arguments(clipo__weight="0.1", clipo__success_fn="verdicts:short", actor__adam__lr="1e-5")
    assert (args.clipo.config.weight, args.clipo.config.dim, args.clipo.config.temperature) == (0.1, 8, 0.05)
    assert args.clipo.success_fn is verdicts.short
    assert args.clipo.success_threshold == 0.5
    assert args.actor.adam.lr == 1e-5


def test_openrlhf_finds_our_classes_under_its_names(arguments: Callable[..., Any]) -> None:
    assert arguments().classes == [ClipoPolicyActor, ClipoPPOTrainer, ClipoPPOTrainerAsync]


def test_without_clipo_openrlhf_is_as_it_was(arguments: Callable[..., Any]) -> None:
    args = arguments(clipo__enabled="false")
    assert [cls.__name__ for cls in args.classes] == ["PolicyModelActor", "PPOTrainer", "PPOTrainerAsync"]
    assert not hasattr(args, "clipo")


def test_scores_of_an_agent_will_do(arguments: Callable[..., Any]) -> None:
    args = arguments(reward__remote_url=None, train__agent_func_path="agent.py", reward__model_name_or_path="judge")
    assert args.clipo.success_fn is None


BAD = [
    ({"clipo__wight": 1}, "--clipo.wight: expected a field of the configuration, got this unknown one"),
    ({"clipo__weight": -1}, "clipo.weight: expected greater than or equal to 0, got '-1'"),
    ({"clipo__objective": "best"}, "clipo.objective: expected 'infonce', "),
    ({"clipo__success_threshold": "high"}, "--clipo.success_threshold: expected a value of type float, got 'high'"),
    ({"clipo__success_fn": "verdicts"}, "clipo.success_fn: expected a function, got module for 'verdicts'"),
    ({"clipo__success_fn": "verdicts:no"}, "clipo.success_fn: expected module:function, got 'verdicts:no': "),
    ({"clipo__success_fn": "nowhere:no"}, "clipo.success_fn: expected module:function, got 'nowhere:no': No module"),
    ({"clipo__success_fn": "verdicts:not_a_function"}, "clipo.success_fn: expected a function, got int for "),
    (
        {"reward__remote_url": None, "reward__model_name_or_path": "judge"},
        "clipo.success_fn: expected a function (module:function) that says which rollouts are right, as "
        "a reward model ",
    ),
    (
        {"rollout__n_samples_per_prompt": 2},
        "rollout.n_samples_per_prompt: expected at least 3 for clipo.scope 'group', got 2",
    ),
    (
        {"data__max_images_per_prompt": 1},
        "data.max_images_per_prompt: expected 0, as CLIPO is for text alone, got 1",
    ),
]


@pytest.mark.parametrize(("settings", "error"), BAD, ids=[error.split(",")[0] for _, error in BAD])
def test_bad_arguments_are_refused_in_one_line(
    arguments: Callable[..., Any], capsys: pytest.CaptureFixture[str], settings: dict[str, Any], error: str
) -> None:
    assert arguments(**settings) == 2
    line, *more = capsys.readouterr().err.splitlines()
    assert not more
    assert line.startswith(f"error: {error}")


@pytest.mark.usefixtures("_ray")
def test_what_is_refused_in_another_process_takes_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @ray.remote
    def refuse() -> None:
        raise ConfigError("clipo.success_fn: expected verdicts, got none")

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: ray.get(refuse.remote()))
    assert main(["--clipo.enabled", "false"]) == 2
    assert capsys.readouterr().err == "error: clipo.success_fn: expected verdicts, got none\n"


def test_two_rollouts_will_do_where_others_prompts_have_the_wrong_ones(arguments: Callable[..., Any]) -> None:
    assert arguments(rollout__n_samples_per_prompt=2, clipo__scope="cross").clipo.config.scope == "cross"


def test_another_version_of_openrlhf_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.reload(adapter)
    monkeypatch.setattr(metadata, "version", lambda _: "0.12.0")
    with pytest.warns(UserWarning, match=r"tested with OpenRLHF 0.11.2, got 0.12.0$"):
        importlib.reload(adapter)


def test_without_openrlhf_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clipo_train.adapters.openrlhf.policy", None)
    with pytest.raises(ImportError, match=r"expected OpenRLHF, got .*; pip install 'clipo\[openrlhf\]'$"):
        importlib.reload(adapter)
