"""A study runs what is missing, can be killed at any moment, and shows what came out."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from clipo_train.cli import main
from clipo_train.errors import ConfigError
from clipo_train.study import runner
from clipo_train.study.analysis import analyse
from clipo_train.study.config import START, load_study, plan_run, start_run
from clipo_train.study.measures import TRAINING, check_measures
from clipo_train.study.page import study_table
from clipo_train.study.runner import MACHINE, RESULTS, read_results, run_one, run_study
from clipo_train.testbed import warm_start

StudyFile = Callable[..., Path]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_runs_a_study_and_then_only_shows_it(
    study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file()
    study = load_study(path)
    assert main(["study", str(path)]) == 0
    out = capsys.readouterr().out
    assert "clipo − plain" in out.replace("\n", "")
    assert str(study.output / "study.html") in out.replace("\n", "")
    page = (study.output / "study.html").read_text()
    for text in ("A small study", "No change in one step.", "with the head", "Holm", "clipo less plain", "<svg"):
        assert text in page
    found = read_results(study.output)
    assert {(row.arm, row.seed) for row in found} == {(a, s) for a in (START, "plain", "clipo") for s in (0, 1)}
    assert all(set(row.measures) == set(study.measures) for row in found if row.arm != START)
    assert {path.name for path in plan_run(study, "clipo", 0).folder.iterdir() if not path.name.startswith(".")} == {
        "config.yaml",
        "metrics.jsonl",
        "completions.jsonl",
    }
    kept = [study.output / name for name in (RESULTS, MACHINE)]
    (study.output / MACHINE).write_text('{"cpu": "another", "cores": 3}')  # where it was run, not where it is shown
    before = [path.read_text() for path in kept]
    assert main(["study", str(path)]) == 0
    assert [path.read_text() for path in kept] == before
    assert "another (3 cores)" in (study.output / "study.html").read_text()


def test_arms_of_a_seed_begin_alike_and_meet_the_same_noise(study_file: StudyFile) -> None:
    study = load_study(study_file())
    for arm, seed in (("plain", 0), ("clipo", 0), ("clipo", 1)):
        run_one(plan_run(study, arm, seed), study.measures)
    first = {
        (arm, seed): [row["completion"] for row in lines(plan_run(study, arm, seed).folder / "completions.jsonl")]
        for arm, seed in (("plain", 0), ("clipo", 0), ("clipo", 1))
    }
    assert first["plain", 0] == first["clipo", 0]
    assert first["clipo", 0] != first["clipo", 1]


def test_a_result_does_not_depend_on_what_ran_before(study_file: StudyFile) -> None:
    study = load_study(study_file())
    run = plan_run(study, "clipo", 0)
    once = run_one(run, study.measures)
    run_one(plan_run(study, "plain", 1), study.measures)
    assert run_one(run, study.measures).measures == once.measures


def test_a_study_that_was_killed_goes_on(study_file: StudyFile, tmp_path: Path) -> None:
    arms = {f"arm{place}": {"what": "", "reward": "head"} for place in range(4)}
    whole, killed = (load_study(study_file(arms=arms, output=str(tmp_path / name))) for name in ("whole", "killed"))
    expected = run_study(whole, show_progress=False)
    path = study_file(arms=arms, output=str(killed.output))
    process = subprocess.Popen([sys.executable, "-m", "clipo_train.cli", "study", str(path)], start_new_session=True)
    results = killed.output / RESULTS
    while not (results.exists() and len(results.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert _gone(process.pid), "workers outlive the study"
    with results.open("a") as file:
        file.write('{"arm": "arm3", "se')  # as if killed while it wrote
    assert 2 < len(read_results(killed.output)) < 10
    found = run_study(killed, show_progress=False)
    assert {(row.arm, row.seed): row.measures for row in found} == {
        (row.arm, row.seed): row.measures for row in expected
    }
    assert len(lines(results)) == 10


def _gone(group: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def test_results_of_other_settings_are_not_mixed_in(study_file: StudyFile, capsys: pytest.CaptureFixture[str]) -> None:
    path = study_file(seeds=1)
    study = load_study(path)
    result = run_one(plan_run(study, "clipo", 0), study.measures)
    study.output.mkdir(exist_ok=True)
    (study.output / RESULTS).write_text(json.dumps(dataclasses.asdict(result)) + "\n")
    before = (study.output / RESULTS).read_text()
    capsys.readouterr()  # the run's own bars, where no test before has switched them off
    base = study.base | {"rollout": {"batch_size": 16, "group_size": 8, "max_new_tokens": 8}}
    assert main(["study", str(study_file(seeds=1, base=base))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("clipo study: output: expected a folder for results of these settings of 'clipo', got ")
    assert error.count("\n") == 1
    assert (study.output / RESULTS).read_text() == before


def test_a_failing_run_says_which(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(study_file(workers=1, seeds=1))
    monkeypatch.setattr(runner, "run_one", _broken)
    with pytest.raises(RuntimeError, match="broken") as raised:
        run_study(study, show_progress=False)
    assert "in arm start, seed 0" in raised.value.__notes__
    assert read_results(study.output) == []


def _broken(run: object, measures: object) -> None:
    raise RuntimeError("broken")


def test_first_policies_are_made_once_for_all_arms(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(study_file())
    study = dataclasses.replace(study, base=study.base | {"model": {"path": "arithmetic"}})
    made = warm_start.warm_start
    seeds: list[int] = []

    def short(seed: int, **options: Any) -> tuple[Any, Any]:
        seeds.append(seed)
        return made(seed, steps=2, **options)

    monkeypatch.setattr(warm_start, "warm_start", short)
    run_one(start_run(study, 0), study.measures)
    result = run_one(plan_run(study, "plain", 0), study.measures)
    assert result.arm == "plain"
    assert seeds == [0]
    config = plan_run(study, "plain", 0).config
    saved = AutoModelForCausalLM.from_pretrained(config.model.path)
    assert torch.equal(saved.get_input_embeddings().weight, made(0, steps=2)[0].get_input_embeddings().weight)
    assert plan_run(study, "plain", 0).settings != plan_run(study, "plain", 1).settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(
            ({"arms": {name: {"what": ""}}}, "arms: expected names of letters, digits and ' ._+=-', not 'start', got ")
            for name in (
                "a/b",
                "start",
                "",
                ".",
                "..",
                "../x",
                "/a",
                ".hidden",
                "a\\b",
                " a",
                "a ",
                "a\n",
                "a\0",
                "é" * 60,
            )
        ),
        ({"arms": {}}, "arms: expected at least one, got none"),
        ({"primary": []}, "primary: expected at least one, got none"),
        *(
            ({kind: [name]}, f"primary, secondary: expected names of metrics, got '{name}'{meant}")
            for kind in ("primary", "secondary")
            for name, meant in {
                "eval/heldout/acuracy": "; did you mean eval/heldout/accuracy?",
                "eval/heldout/pass_at_": "; did you mean eval/heldout/pass_at_<k>?",
                "rollout/acuracy": "; did you mean rollout/accuracy?",
                "rolout/accuracy": "; did you mean rollout/accuracy?",
                "accuracy": "; did you mean rollout/accuracy?",
                "qqqq": "",
                "": "",
            }.items()
        ),
        (
            {"primary": ["eval/acuracy"]},
            "primary, secondary: expected sets of base.evaluation.sets, got 'eval/acuracy'",
        ),
        ({"arms": {"a": {"what": "", "reward": "luck"}}}, "arms.a.reward: expected one of none, head, "),
        ({"arms": {"a": {"what": "", "against": ["b"]}}}, "arms.a.against: expected other arms, got 'b'"),
        ({"arms": {"a": {"what": "", "fields": {"stepz": 1}}}}, "arms.a.fields: stepz: expected a field of the config"),
        (
            {"base": {"rollout": {"group_size": 1}}},
            "base: rollout.group_size: expected greater than or equal to 2",
        ),
        ({"primary": ["eval/nowhere/accuracy"]}, "primary, secondary: expected sets of base.evaluation.sets, got "),
        ({"seeds": 0}, "seeds: expected greater than or equal to 1, got 0"),
        ({"colour": "red"}, "colour: expected a field of the configuration, got this unknown one"),
    ],
)
def test_a_study_that_cannot_work_is_refused_in_a_line(
    fields: dict[str, object], message: str, study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(**fields)
    assert main(["study", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"clipo study: {message}")
    assert error.count("\n") == 1
    assert not path.with_name("study").exists()


def test_the_measures_are_those_of_the_glossary() -> None:
    glossary = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    listed = set(re.findall(r"`([^` ]+)`", "".join(re.findall(r"^\| (`.*?) \|", glossary, re.MULTILINE))))
    listed = {name for name in listed if not name.startswith("rewards/")}  # TRL's
    trained = {name for name in listed if not name.startswith("eval/")}
    assert trained <= set(TRAINING)
    assert set(TRAINING) - trained == {"contrastive/noise_share"}  # studies measure it themselves
    check_measures([re.sub("<[kn]>", "4", name.replace("<set>", "a")) for name in listed], ["a", "average"])


@pytest.mark.parametrize(
    "file",
    ["runs/plain/seed-1/notes.txt", "runs/plain/seed-1/final/model.bin", "start/seed-0/thesis.tex", "start/seed-1"],
)
def test_what_is_not_the_studys_is_never_removed(
    file: str, study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(path := study_file())
    mine = study.output / file
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (mine.parent / "config.yaml").write_text("seed: 1")
    assert main(["study", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("clipo study: output: expected nothing but unfinished runs of the study, got ")
    assert error.count("\n") == 1
    assert mine.read_text() == "mine"
    assert not (study.output / RESULTS).exists()


def test_a_link_in_place_of_a_runs_folder_is_refused(study_file: StudyFile, tmp_path: Path) -> None:
    study = load_study(study_file())
    (tmp_path / "elsewhere").mkdir()
    folder = plan_run(study, "plain", 0).folder
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="output: expected nothing but unfinished runs"):
        run_one(plan_run(study, "plain", 0), study.measures)
    assert folder.is_symlink()


def test_a_measure_that_no_arm_has_stops_the_study_after_its_first_seed(study_file: StudyFile) -> None:
    study = load_study(study_file(primary=["rollout/sampling_rounds"], workers=1))  # without dynamic sampling
    with pytest.raises(ConfigError, match="primary: expected measures that an arm has, got 'rollout/sampling_rounds'"):
        run_study(study, show_progress=False)
    assert {(row.arm, row.seed) for row in read_results(study.output)} <= {
        *((START, seed) for seed in range(2)),
        ("plain", 0),
        ("clipo", 0),
    }


def test_a_title_is_no_markup(study_file: StudyFile) -> None:
    study = load_study(study_file(title="[/b] \x9b31m", primary=["policy/entropy"]))
    console = Console(width=200, file=io.StringIO())
    console.print(study_table(study, analyse(study, [])))
    assert "[/b] \\x9b31m" in console.file.getvalue()  # type: ignore[attr-defined]
