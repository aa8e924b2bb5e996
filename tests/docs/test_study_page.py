"""The study's page says what its committed results say."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from clipo_train.study.config import START, load_study, plan_run
from clipo_train.study.runner import read_results

ROOT = Path(__file__).parents[2]

every_study = pytest.mark.parametrize("name", ["clipo", "consensus"])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_figures", ROOT / "docs" / "figures" / "study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_study
def test_the_committed_results_are_whole_and_of_the_committed_settings(name: str) -> None:
    study = load_study(ROOT / "studies" / name / "study.yaml")
    results = read_results(ROOT / "studies" / name)
    runs = {(row.arm, row.seed): row for row in results}
    assert len(runs) == len(results)
    assert study.seeds >= 20
    assert runs.keys() == {(arm, seed) for arm in (START, *study.arms) for seed in range(study.seeds)}
    wrong = [key for key, row in runs.items() if key[0] != START and row.settings != plan_run(study, *key).settings]
    assert wrong == []


@every_study
def test_the_tables_are_those_of_the_results(script: ModuleType, name: str) -> None:
    """If this is what you want: python docs/figures/study.py"""
    committed = (ROOT / "studies" / name / "tables.md").read_text(encoding="utf-8")
    assert _rounded(script.tables(name)) == _rounded(committed)


def _rounded(text: str) -> str:
    """Without the last digit, in which another processor may differ."""
    return re.sub(r"(\.\d\d)\d+", r"\1", text)


def test_the_figures_tell_every_arm() -> None:
    study = load_study(ROOT / "studies" / "clipo" / "study.yaml")
    compared = [name for name, arm in study.arms.items() if arm.against]
    for figure in ("process", "accuracy"):
        drawn = (ROOT / "docs" / "assets" / f"study-{figure}.svg").read_text(encoding="utf-8")
        assert [name for name in compared if f"{name} − {study.arms[name].against[0]}" not in drawn] == []
