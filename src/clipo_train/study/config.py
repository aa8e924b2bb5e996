"""What a study compares: arms, seeds, measures."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from clipo_train.config import TrainConfig
from clipo_train.config.fields import STRICT, Count
from clipo_train.config.files import merged, read_fields, validated
from clipo_train.config.yaml_files import read_yaml
from clipo_train.errors import ConfigError
from clipo_train.study.measures import check_measures
from clipo_train.study.rewards import REWARDS, WITH_HEAD
from clipo_train.testbed.warm_start import is_test_bed

START = "start"
"""The arm that is not trained."""

_ARM = re.compile(r"\w[\w ._+=-]*")
"""Names of arms, which are names of folders too."""
_LONGEST = 100


@dataclass(frozen=True, config=STRICT)
class ArmConfig:
    """One way to train."""

    what: str
    """A line about it, for the page."""
    reward: str = "none"
    """One of `clipo_train.study.rewards`, such as `none` or `head`."""
    against: tuple[str, ...] = ()
    """Arms it is compared with."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that differ from `base`; with a `preset`, `base` wins over its fields."""
    expect: str = ""
    """What it should change and why, written before it was run."""


@dataclass(frozen=True, config=STRICT)
class StudyConfig:
    """A study: every arm is run with every seed."""

    title: str
    """Of the page."""
    output: Path
    """Folder of its results; a study that was stopped goes on in it."""
    base: dict[str, Any]
    """Fields of the trainer's configuration in all arms."""
    arms: dict[str, ArmConfig]
    """By name."""
    primary: tuple[str, ...]
    """Measures that are tested, with a correction for the number of all tests; as `eval/heldout/accuracy`, or of
    training the mean over its steps, as `rollout/accuracy`."""
    secondary: tuple[str, ...] = ()
    """Measures that are told with their intervals, and not tested."""
    seeds: Count = 20
    """Of every arm: 0, 1, ..."""
    workers: Count = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes, of one thread each."""

    def __post_init__(self) -> None:
        for field_name in ("arms", "primary"):
            if not getattr(self, field_name):
                raise ValueError(f"{field_name}: expected at least one, got none")
        for name, arm in self.arms.items():
            if not _ARM.fullmatch(name) or name != name.strip() or len(name.encode()) > _LONGEST or name == START:
                raise ValueError(f"arms: expected names of letters, digits and ' ._+=-', not {START!r}, got {name!r}")
            if arm.reward not in REWARDS:
                raise ValueError(f"arms.{name}.reward: expected one of {', '.join(REWARDS)}, got {arm.reward!r}")
            for other in arm.against:
                if other not in self.arms or other == name:
                    raise ValueError(f"arms.{name}.against: expected other arms, got {other!r}")

    @property
    def measures(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(self.primary + self.secondary))


@dataclass(frozen=True)
class Run:
    """An arm with a seed; the arm `START` is the policy that all arms of the seed begin with."""

    arm: str
    seed: int
    reward: str
    config: TrainConfig
    settings: str
    """Names all that its numbers depend on."""

    @property
    def folder(self) -> Path:
        """Of its logs."""
        return self.config.run_dir


def load_study(path: Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Reads a study's file; `overrides` are fields such as `seeds` that win over it, unless they are None.

    Raises:
        ConfigError: It cannot be read, or the configuration of an arm is wrong.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    study = validated(StudyConfig, read_yaml(path) | given)
    for name in study.arms:
        plan_run(study, name, 0)
    check_measures(study.measures, [*start_run(study, 0).config.evaluation.sets])
    return study


def start_run(study: StudyConfig, seed: int) -> Run:
    """What all arms of a seed begin with; it is evaluated, not trained."""
    fields = {"seed": seed, "run_dir": study.output / START / f"seed-{seed}"}
    config = _read(study.base, fields, "base")
    return Run(START, seed, "none", config, _settings("none", config, config.model.path))


def plan_run(study: StudyConfig, arm: str, seed: int) -> Run:
    """The run of an arm with a seed.

    Raises:
        ConfigError: A field that the trainer does not take.
    """
    settings, start = study.arms[arm], start_run(study, seed)
    fields: dict[str, Any] = {
        "seed": seed,
        "run_dir": study.output / "runs" / arm / f"seed-{seed}",
        "clipo": {"enabled": settings.reward in WITH_HEAD},
        "evaluation": {"initial": False},
        "model": {"path": model_path(start)},
    }
    config = _read(merged([study.base, settings.fields]), fields, f"arms.{arm}.fields")
    return Run(arm, seed, settings.reward, config, _settings(settings.reward, config, start.config.model.path))


def model_path(start: Run) -> str:
    """Where the arms of a seed find their first policy; the test bed's is made once for all of them."""
    path = start.config.model.path
    return str(start.folder / "model") if is_test_bed(path) else path


def _read(fields: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> TrainConfig:
    try:
        return read_fields([fields, fixed])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _settings(reward: str, config: TrainConfig, model: str) -> str:
    """Without what says where things are on the disk."""
    plain = replace(config, run_dir=Path(), model=replace(config.model, path=model))
    given = TypeAdapter(TrainConfig).dump_json(plain, exclude_defaults=True)  # a field that is new changes nothing
    return hashlib.sha256(reward.encode() + given).hexdigest()[:12]
