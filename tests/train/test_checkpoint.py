"""What is in a checkpoint, who may read it, and that a resumed run has the same schedule and the same prompts."""

import errno
import fcntl
import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.folders import drop, whole_folder
from clipo_train.manifest import write_manifest
from clipo_train.metrics import MetricsLog
from clipo_train.report import load_metrics
from clipo_train.run_lock import locked
from clipo_train.testbed.warm_start import build_model
from clipo_train.trainer import Trainer

FILES = (
    "policy/model.safetensors",
    "optimizer.pt",
    "head.pt",
    "random.pt",
    "config.yaml",
    "clipo.json",
    "manifest.json",
)


class Executed:
    """Its pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def run(config_file: Callable[..., Path]) -> Path:
    """A finished run with two checkpoints."""
    return Trainer(load_config(config_file(checkpoint={"every": 1}))).train().parent


def resume(run: Path, *arguments: str) -> int:
    return main(["train", str(run.with_name("config.yaml")), "--resume", *arguments])


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("wrapped", [True, False], ids=["by torch", "plain"])
@pytest.mark.parametrize("file", FILES)
def test_nothing_in_a_checkpoint_is_executed(
    file: str, wrapped: bool, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executed, planted = tmp_path / "executed", run / "checkpoints" / "step-00000002" / file
    if wrapped:
        torch.save({"optimizer": Executed(executed)}, planted)
    elif file == "config.yaml":
        planted.write_text(f"run_dir: !!python/object/apply:os.mkdir [{executed}]")
    else:
        planted.write_bytes(pickle.dumps(Executed(executed)))
    if file != "manifest.json":
        write_manifest(run / "checkpoints" / "step-00000002")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert resume(run, "--steps", "3") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(
        ("clipo train: resume: expected a readable checkpoint, got '", "clipo train: config: expected ")
    )
    assert "step-00000002" in error
    assert not executed.exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    shutil.rmtree(run / "checkpoints" / "step-00000002")
    assert resume(run) == 0
    assert load_metrics(run)[-1]["step"] == 2


def test_what_is_planted_would_be_executed(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Executed(tmp_path / "executed")))  # noqa: S301 - our own
    assert (tmp_path / "executed").is_dir()


def test_a_checkpoint_holds_a_policy_and_nothing_unknown(run: Path) -> None:
    for step in (1, 2):
        folder = run / "checkpoints" / f"step-{step:08d}"
        assert {path.name for path in folder.iterdir()} == {*(file.split("/")[0] for file in FILES)}
        assert AutoTokenizer.from_pretrained(folder / "policy").eos_token_id == 16
        AutoModelForCausalLM.from_pretrained(folder / "policy")
    names = {path.name for path in (run / "final").iterdir()}
    assert {name for name in names if not name.endswith((".json", ".jinja"))} == {"model.safetensors"}


def test_export_of_a_step(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), str(tmp_path / "last")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'last'}\n"
    assert main(["export", str(run), str(tmp_path / "first"), "--step", "1"]) == 0
    for file in (run / "final").iterdir():
        assert (tmp_path / "last" / file.name).read_bytes() == file.read_bytes()
    first, last = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "last"))
    assert first.keys() == last.keys()
    assert not all(value.equal(last[name]) for name, value in first.items())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "first")("1+1=")["input_ids"]])
    assert model.generate(ids, max_new_tokens=2).shape == (1, 6)


def test_a_model_that_was_replaced(
    run: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    moved = shutil.copytree(untrained, tmp_path / "model")
    config.write_text(config.read_text().replace(str(untrained), str(moved)))
    shutil.rmtree(run)
    Trainer(load_config(config)).train()
    model = build_model(0)
    model.resize_token_embeddings(32)
    model.save_pretrained(moved)
    assert resume(run, "--steps", "3") == 2
    message = capsys.readouterr().err
    assert "resume: expected a checkpoint of Qwen2ForCausalLM(hidden_size=64, layers=2, vocab_size=32" in message
    assert "got Qwen2ForCausalLM(hidden_size=64, layers=2, vocab_size=17" in message


def test_steps_evaluation_and_logging_may_change(run: Path) -> None:
    changed = ["--steps", "3", "--evaluation.limit", "4", "--logging.completions", "1", "--checkpoint.keep", "1"]
    assert resume(run, *changed, "--optimizer.micro_batch_size", "4") == 0
    assert [row["step"] for row in load_metrics(run)] == [0, 1, 2, 3]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_run_without_a_checkpoint_begins_and_says_so(
    config_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    config = config_file(checkpoint={"every": 0})
    with interrupted_at(1), pytest.raises(KeyboardInterrupt):
        Trainer(load_config(config)).train()
    run = load_config(config).run_dir
    assert resume(run) == 0
    assert caplog.messages == [f"resume: no checkpoint in {str(run)!r} yet: the run begins"]
    assert [row["step"] for row in load_metrics(run)] == [0, 1, 2]
    assert (run / "final").is_dir()


FOREIGN = {
    "config.yaml": ("config.yaml", "config.yaml"),
    "notes.txt": ("notes.txt", None),
    "final/weights": ("final/weights config.yaml", "final"),
    "adapter/weights": (".begun adapter/weights config.yaml", "adapter"),
    "metrics.jsonl": ("metrics.jsonl config.yaml", "metrics.jsonl"),
    "a copy of a checkpoint": ("checkpoints/step-00000003-best/clipo.json config.yaml", "config.yaml"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_that_is_no_run_is_never_written_to(
    kind: str, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file()
    run = load_config(config).run_dir
    files, named = FOREIGN[kind]
    for file in files.split():
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text("run_dir: mine")
    before = tree(run)
    assert resume(run) == 2
    has = "which has no config.yaml" if named is None else f"which has {named} but no checkpoint"
    error = capsys.readouterr().err
    assert error.startswith("clipo train: run_dir: expected the folder of a run ")
    assert error.endswith(f"got {str(run)!r}, {has}\n")
    assert tree(run) == before


def test_results_whose_checkpoints_are_gone_are_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    before = tree(run)
    assert resume(run) == 2
    assert "which has final but no checkpoint" in capsys.readouterr().err
    shutil.rmtree(run / "final")
    assert resume(run) == 2
    assert "which has metrics.jsonl but no checkpoint" in capsys.readouterr().err
    assert before.items() >= tree(run).items()
    assert (run / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]


def test_two_runs_in_one_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(run):
        before = tree(run)
        assert resume(run, "--steps", "3") == 2
        assert capsys.readouterr().err == (
            f"clipo train: run_dir: expected a folder that no other run uses, got {str(run)!r}, in which process "
            f"{os.getpid()} trains\n"
        )
        assert tree(run) == before
    assert resume(run, "--steps", "3") == 0


def test_of_two_that_begin_at_once_one_goes_on(config_file: Callable[..., Path]) -> None:
    config = load_config(config_file())
    one, other = Trainer(config, show_progress=False), Trainer(config, show_progress=False)
    one.train()
    before = tree(config.run_dir)
    with pytest.raises(ConfigError, match="expected a new folder"):
        other.train()
    assert tree(config.run_dir) == before


@pytest.mark.parametrize("lock", ["none", "left", "a link", "a folder"])
def test_the_lock_of_a_folder(lock: str, config_file: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(config_file())
    config.run_dir.mkdir()
    (tmp_path / "users").write_text("mine")
    if lock == "left":  # by a run that was killed before it had written anything else
        (config.run_dir / ".lock").write_text("123456\n")
    elif lock == "a link":
        (config.run_dir / ".lock").symlink_to(tmp_path / "users")
    elif lock == "a folder":
        (config.run_dir / ".lock").mkdir()
    refused = pytest.raises(ConfigError, match=r"run_dir: expected a folder that can be written, got [^\n]*$")
    with refused if lock.startswith("a ") else nullcontext():
        Trainer(config, show_progress=False).train()
    assert (tmp_path / "users").read_text() == "mine"


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path):
        assert "expected a file system with locks" in caplog.messages[0]


def test_another_number_of_processes_is_told(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = run / "checkpoints" / "step-00000002" / "random.pt"
    torch.save(torch.load(path, weights_only=True) * 2, path)
    write_manifest(path.parent)
    assert resume(run, "--steps", "3") == 0
    assert caplog.messages == [
        "resume: expected the checkpoint's 2 processes, got 1: the run goes on, but to other numbers"
    ]


def test_saving_before_the_first_update_changes_nothing(config_file: Callable[..., Path], tmp_path: Path) -> None:
    """The head warms up in step 1, so that the optimizer has no state when that is saved."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}=", "answer": str(n % 2)}) + "\n" for n in range(4)))
    config = config_file(
        data={"train": str(rows), "verifier": "exact_match"},
        rollout={"batch_size": 64, "group_size": 16, "max_new_tokens": 1},
        optimizer={"minibatch_size": 64},
        clipo={"warmup_steps": 1},
    )
    weights = []
    for every in ("1", "0"):
        run = tmp_path / every
        Trainer(load_config(config, ["--run_dir", str(run), "--checkpoint.every", every])).train()
        assert load_metrics(run)[-1]["policy/grad_norm"] > 0
        weights.append(load_file(run / "final" / "model.safetensors"))
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def flip_a_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_a_flipped_bit_in_any_file_is_noticed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, checkpoint = random.Random(16), run / "checkpoints" / "step-00000002"
    for name in (name for name in tree(checkpoint) for _ in range(3)):
        whole = (checkpoint / name).read_bytes()
        flip_a_bit(checkpoint / name, rng)
        before = tree(tmp_path)
        for command in (
            ["train", str(tmp_path / "config.yaml"), "--resume", "--steps", "3"],
            ["export", str(run), str(tmp_path / "out")],
        ):
            assert main(command) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"expected a readable checkpoint, got {str(checkpoint)!r}; remove it to go on from the one" in error
            if name != "manifest.json":  # of which a bit may be part of another file's name
                assert f"({name!r} is not what was written)" in error
            assert tree(tmp_path) == before
        (checkpoint / name).write_bytes(whole)
    assert resume(run, "--steps", "3") == 0


DAMAGES: dict[str, Callable[[Path], object]] = {
    "'random.pt' is missing": lambda folder: (folder / "random.pt").unlink(),
    "'manifest.json' is missing": lambda folder: (folder / "manifest.json").unlink(),
    "'policy/config.json' is missing": lambda folder: (folder / "policy" / "config.json").unlink(),
    "'policy/adapter.bin' is not a file of it": lambda folder: (folder / "policy" / "adapter.bin").write_text("x"),
    "'notes.txt' is not a file of it": lambda folder: (folder / "notes.txt").write_text(""),
    "'head.pt' has 100 bytes, not": lambda folder: os.truncate(folder / "head.pt", 100),
    "'optimizer.pt' has 0 bytes, not": lambda folder: os.truncate(folder / "optimizer.pt", 0),
    "'manifest.json' is not what was written": lambda folder: (folder / "manifest.json").write_text('{"a": []}'),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(
    reason: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = run / "checkpoints" / "step-00000002"
    DAMAGES[reason](checkpoint)
    before = tree(tmp_path)
    for arguments in (
        ["train", str(tmp_path / "config.yaml"), "--resume"],
        ["export", str(run), str(tmp_path / "out")],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"({reason}" in error
        assert "remove it to go on from the one before" in error
        assert tree(tmp_path) == before
    assert main(["export", str(run), str(tmp_path / "out"), "--step", "1"]) == 0
    shutil.rmtree(checkpoint)
    assert resume(run) == 0


def interrupted_at(step: int) -> Any:
    """A block in which a run ends by Ctrl-C once that step is logged."""
    log = MetricsLog.log

    def log_and_stop(self: MetricsLog, at: int, metrics: Any) -> None:
        log(self, at, metrics)
        if at == step:
            raise KeyboardInterrupt

    return patch.object(MetricsLog, "log", log_and_stop)


def series(run: Path) -> tuple[list[float], list[str]]:
    """Learning rates by step, and prompts in the order they were taken."""
    rows = [json.loads(line) for line in (run / "completions.jsonl").read_text().splitlines()]
    rates = [json.loads(line)["policy/learning_rate"] for line in (run / "metrics.jsonl").read_text().splitlines()[1:]]
    return rates, [row["prompt"] for row in rows]


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
    warmup=st.integers(0, 5),
    minibatches=st.sampled_from([1, 2]),
    seed=st.integers(0, 9),
    every=st.integers(1, 3),
    stop=st.integers(0, 4),
    rows=st.integers(1, 7),
)
def test_a_resumed_run_has_the_same_schedule_and_prompts(
    schedule: str, warmup: int, minibatches: int, seed: int, every: int, stop: int, rows: int, untrained: Path
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text(
            "".join(json.dumps({"prompt": f"{n}=", "answer": "1"}) + "\n" for n in range(rows))
        )
        values = {
            "steps": 5,
            "seed": seed,
            "model": {"path": str(untrained)},
            "data": {"train": str(folder / "rows.jsonl"), "verifier": "exact_match"},
            "rollout": {"batch_size": 4, "group_size": 2, "max_new_tokens": 1},
            "optimizer": {"schedule": schedule, "warmup_updates": warmup, "minibatch_size": 4 // minibatches},
            "checkpoint": {"every": every},
        }
        values["optimizer"] |= {"micro_batch_size": 4 // minibatches}
        (folder / "config.yaml").write_text(json.dumps(values))
        for run in ("whole", "stopped"):
            arguments = ["--run_dir", str(folder / run)]
            if run == "stopped":
                with interrupted_at(stop), pytest.raises(KeyboardInterrupt):
                    Trainer(load_config(folder / "config.yaml", arguments)).train()
            Trainer(load_config(folder / "config.yaml", [*arguments, "--resume"])).train()
        rates, prompts = series(folder / "whole")
        assert series(folder / "stopped") == (rates, prompts)
        assert len(rates) == 5
        taken = [prompts[n] for step in range(5) for n in (4 * step, 4 * step + 1)]
        for epoch in range(10 // rows):
            assert len(set(taken[epoch * rows : (epoch + 1) * rows])) == rows


def test_only_our_checkpoints_are_dropped_resumed_and_exported(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints"
    for name in ("step-00000001-best", "step-00000009-best", "step-9", "best", ".dropped-mine", ".unfinished-mine"):
        shutil.copytree(folder / "step-00000001", folder / name)
    (folder / "step-00000000").mkdir()  # of a checkpoint's name, but not one
    (folder / "step-00000000" / "notes.txt").write_text("mine")
    (folder / "step-00000007").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "clipo.json").write_text("{}")
    (folder / "step-00000000-link").symlink_to(tmp_path / "elsewhere")
    before = {name: text for name, text in tree(folder).items() if not name.startswith("step-0000000")}
    for name in (".unfinished-step-00000003", ".dropped-step-00000001"):  # what a kill leaves
        shutil.copytree(folder / "step-00000001", folder / name)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert tree(tmp_path / "out") == tree(run / "final")
    assert resume(run, "--steps", "3", "--checkpoint.keep", "1") == 0
    ours = {"step-00000003"}
    users = {"step-00000001-best", "step-00000009-best", "step-9", "best", ".dropped-mine", ".unfinished-mine"}
    users |= {"step-00000000", "step-00000007", "step-00000000-link"}
    assert {path.name for path in folder.iterdir()} == ours | users
    assert before.items() <= tree(folder).items()
    assert (folder / "step-00000000" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("left", ["folder", "file", "link", "half"])
def test_a_folder_is_replaced_whatever_a_kill_has_left(left: str, tmp_path: Path) -> None:
    final = tmp_path / "final"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("mine")
    for path in (tmp_path / ".dropped-final", tmp_path / ".unfinished-final"):
        if left == "folder":
            shutil.copytree(tmp_path / "elsewhere", path)
        elif left == "file":
            path.write_text("old")
        elif left == "link":
            path.symlink_to(tmp_path / "elsewhere")
        else:
            path.mkdir()
    for text in ("old", "new"):
        with whole_folder(final) as folder:
            (folder / "file").write_text(text)
        assert tree(final) == {"file": text.encode()}
    shutil.copytree(final, tmp_path / ".dropped-final")
    drop(final)
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere"}
    assert (tmp_path / "elsewhere" / "kept").read_text() == "mine"


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "file").write_text("old")

    def fill() -> None:
        with whole_folder(tmp_path / "final") as folder:
            (folder / "file").write_text("n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert tree(tmp_path) == {"final/file": b"old"}
