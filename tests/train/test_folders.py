"""Foreign folders, damaged checkpoints and other runs: what is not a run's own is neither used nor touched."""

import errno
import fcntl
import os
import random
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.folders import drop, whole_folder
from clipo_train.run_lock import locked
from clipo_train.trainer import Trainer


@pytest.fixture
def run(config_file: Callable[..., Path]) -> Path:
    """A finished run with two checkpoints."""
    return Trainer(load_config(config_file(checkpoint={"every": 1}))).train().parent


def resume(run: Path, *arguments: str) -> int:
    return main(["train", str(run.with_name("config.yaml")), "--resume", *arguments])


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
