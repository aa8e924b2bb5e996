"""The `clipo` command: what it prints, and that bad input ends in one line, status 2, and nothing lost."""

import errno
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from clipo_train import cli, jsonl
from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.trainer import Trainer


@pytest.fixture
def finished(config_file: Callable[..., Path]) -> Path:
    """The folder of a finished run."""
    return Trainer(load_config(config_file())).train().parent


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is printed about bad input."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"clipo {arguments[0]}: ")
    return captured.err.split(": ", 1)[1]


def test_train_prints_a_table_and_the_report(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file()
    assert main(["train", str(config)]) == 0
    out = capsys.readouterr().out
    report = load_config(config).run_dir / "report.html"
    assert "before → after" in out
    assert "heldout" in out
    assert f"Report: {report}" in out.replace("\n", "")
    assert report.is_file()


def test_eval_of_a_run_uses_its_final_policy(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(finished)]) == 0
    metrics = json.loads(capsys.readouterr().out)
    last = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()][-1]
    assert metrics == {name: value for name, value in last.items() if name.startswith("eval/")}


def test_report_is_written_anew(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")
    assert (finished / "report.html").is_file()


def test_help_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "clipo train CONFIG.yaml" in capsys.readouterr().out
    assert main([]) == 2
    assert "usage: clipo" in capsys.readouterr().err


@pytest.mark.parametrize("function", ["raises", "not_a_verdict"])
def test_a_bad_verifier_ends_the_run(
    function: str,
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    rows = [{"prompt": f"{n}+1=", "answer": "1", "pid_file": str(tmp_path / "pid")} for n in range(8)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = ["--data.verifier", f"verifier_functions:{function}", "--data.verifier_timeout", "3"]
    arguments = ["--data.train", str(source), "--evaluation.sets", f"rows={source}"]
    message = refused(capsys, "train", str(config_file()), *verifier, *arguments)
    assert message.startswith("data.verifier: expected a ")
    assert f"'verifier_functions:{function}'" in message


def test_a_verifier_that_hangs_does_not_end_the_run(
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{n}+1=", "answer": "1"}) + "\n" for n in range(8)))
    verifier = ["--data.verifier", "verifier_functions:hangs_once", "--data.verifier_timeout", "1"]
    verifier += ["--data.verifier_env", "HUNG"]
    arguments = ["--data.train", str(source), "--evaluation.sets", f"rows={source}", "--steps", "1"]
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    config = config_file()
    assert main(["train", str(config), *verifier, *arguments]) == 0
    lines = (load_config(config).run_dir / "metrics.jsonl").read_text().splitlines()
    keys = ("eval/rows/verifier_timeouts", "rollout/verifier_timeouts")
    assert sum(json.loads(line).get(key, 0) for line in lines for key in keys) == 1


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "output: expected to be read and written, got No space left",
        ),
        (OSError(errno.EROFS, "Read-only", "a/b"), 2, "a/b: expected to be read and written, got Read-only"),
        (
            PermissionError(errno.EACCES, "Permission denied", b"a"),
            2,
            "a: expected to be read and written, got Permiss",
        ),
        (OSError("x is no\n model"), 2, "files: expected to be read and written, got OSError: x is no model"),
        (MemoryError(), 2, "memory: expected enough of it, got too little"),
        (KeyboardInterrupt(), 130, "stopped"),
        (ConfigError("a: expected b, got \x1b[2J\n\x9bc"), 2, "a: expected b, got \\x1b[2J\\n\\x9bc"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_system_refuses_is_told_in_one_line(
    raised: BaseException,
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "_report", raises(raised))
    assert main(["report", "run"]) == status
    error = capsys.readouterr().err
    assert error.startswith(f"clipo report: {line}")
    assert error.count("\n") == 1


def test_what_nobody_expects_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_report", raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["report", "run"])


def raises(error: BaseException) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("file", ["metrics.jsonl", "completions.jsonl"])
def test_a_full_disk_ends_a_run_in_one_line(
    file: str, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = jsonl.append

    def full(path: Path, rows: Iterable[Any]) -> None:
        if path.name == file:
            path.symlink_to("/dev/full")
        append(path, rows)

    monkeypatch.setattr(jsonl, "append", full)
    config = config_file()
    capsys.readouterr()
    assert main(["train", str(config)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clipo train: ")
    assert last.endswith(f"{file}: expected to be read and written, got No space left on device")
