"""A disk that is full: one line that names what could not be written, nothing lost, and the same numbers afterwards."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.testbed.warm_start import build_model, build_tokenizer
from clipo_train.trainer import Trainer
from clipo_train.whole_file import disk_errors

from .comparing import differing, read

FILES = (
    *("checkpoints/step-00000002/policy/model.safetensors", "checkpoints/step-00000002/policy/tokenizer.json"),
    *(f"checkpoints/step-00000002/{name}" for name in ("optimizer.pt", "head.pt", "random.pt", "manifest.json")),
    *("config.yaml", "metrics.jsonl", "report.html"),
)
"""Files of a run, each of which is once a byte larger than a file may be."""


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond this size in the block, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file", FILES)
def test_a_run_that_cannot_be_written(
    file: str, config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(checkpoint={"every": 1}, logging={"completions": 0})
    whole = Trainer(load_config(config, ["--run_dir", str(tmp_path / "whole")])).train().parent
    capsys.readouterr()
    arguments = ["train", str(config), "--resume"]
    with largest_file((whole / file).stat().st_size - 1):
        assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("clipo train: ")
    assert line.endswith(": expected to be read and written, got File too large")
    assert str(tmp_path / "run") in line
    assert not list((tmp_path / "run").rglob("*unfinished*"))
    assert main(arguments) == 0
    assert differing(read(tmp_path / "run"), read(whole)) == []


def save_by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(10_000)}, file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "torch": save_by_torch,
    "safetensors": lambda path: save_file({"a": torch.zeros(10_000)}, path),
    "a model": lambda path: build_model(0).save_pretrained(path),
    "a tokenizer": lambda path: build_tokenizer().save_pretrained(path),
    "tokenizers": lambda path: build_tokenizer().backend_tokenizer.save(str(path)),
    "text": lambda path: path.write_text("a" * 10_000),
}
"""Libraries that report a full disk each in its own way."""


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("size", [0, 999])
def test_every_library_tells_of_a_full_disk(writer: str, size: int, tmp_path: Path) -> None:
    with largest_file(size), pytest.raises(OSError, match="File too large") as told, disk_errors(tmp_path / "named"):
        WRITERS[writer](tmp_path / "path")
    assert told.value.errno == errno.EFBIG
    assert told.value.filename == str(tmp_path / "named")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not fit"), ValueError("x"), OSError("a library's own")],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_errors(Path("named")):
        raise error
    assert raised.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_cannot_be_written(stream: str) -> None:
    arguments = ["--help"] if stream == "stdout" else ["nonsense"]
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        command = [sys.executable, "-m", "clipo_train.cli", *arguments]
        ended = subprocess.run(command, text=True, check=False, env=dict(os.environ), **streams)  # type: ignore[call-overload]
    assert ended.returncode == 2
    if stream == "stdout":
        assert ended.stderr == "clipo --help: output: expected to be read and written, got No space left on device\n"
