"""Every command that a page shows is one: its words are read by the program that they are for."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest
from accelerate.commands.launch import launch_command_parser

from clipo_train.cli import main

from .blocks import ROOT, Block, blocks, every, inline_commands

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules of other stacks, which have environments of their own, and what their words look like.
ELSEWHERE = {
    "verl.trainer.main_ppo": r"\.\.\.|\+?[\w.]+=\S+",
    "openrlhf.cli.train_ppo_ray": r"\.\.\.|--[\w.]+|\w\S*",
}


class Understood(Exception):  # noqa: N818 - it is what should happen
    """Raised where a command would begin its work."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the files that pages speak of, where our commands stop when they have understood their words."""

    def stop(*_: object, **__: object) -> NoReturn:
        raise Understood

    for place in ("trainer.Trainer", "evaluation.evaluate", "report.write_report", "report.write_comparison"):
        monkeypatch.setattr(f"clipo_train.{place}", stop)
    for place in ("checkpoint.export_checkpoint", "verifiers.load_verifier", "study.runner.run_study"):
        monkeypatch.setattr(f"clipo_train.{place}", stop)
    (config,) = (b.code for b in blocks(ROOT / "docs" / "getting-started.md") if b.language == "yaml")
    for name in ("my.yaml", "CONFIG.yaml", "RUN/config.yaml", "runs/mine/config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config)
        if path.name == "config.yaml":
            (path.parent / "final").mkdir()
    for name in ("examples", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "STUDY.yaml").symlink_to(ROOT / "studies" / "clipo" / "study.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(block: Block) -> list[str]:
    """The commands of a block; what follows a prompt, where there are such."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def understand(command: str) -> None:
    """Fails if a command is none."""
    words = shlex.split(command.partition(" > ")[0], comments=True)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    match words:
        case ["make", *targets]:
            known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {target for target in targets if "=" not in target} <= set(known), command
        case ["pip", "install", *packages]:
            for package in packages:
                _installable(package)
        case ["clipo", *arguments]:
            _our_command(arguments)
        case ["accelerate", "launch", *arguments]:
            launch = launch_command_parser().parse_args(arguments)
            assert launch.config_file is None or Path(launch.config_file).is_file(), command
            _module([launch.training_script, *launch.training_script_args])
        case ["python", "-m", *arguments]:
            _module(arguments)
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), command
        case _:
            pytest.fail(f"{command}: no test knows this program")


def _module(words: list[str]) -> None:
    module, *arguments = words
    if module == "clipo_train.cli":
        _our_command(arguments)
    elif module in ELSEWHERE:
        assert all(re.fullmatch(ELSEWHERE[module], argument) for argument in arguments), arguments
    else:
        path = ROOT / "src" / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def _our_command(arguments: list[str]) -> None:
    if arguments[-1] == "--help":
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        return
    with pytest.raises(Understood):
        main(arguments)


def _installable(package: str) -> None:
    """Ours with an extra that exists, or another package."""
    name, _, extras = package.rstrip("]").partition("[")
    assert re.fullmatch(r"[a-z-]+", name), package
    if name == PROJECT["name"]:
        assert set(filter(None, extras.split(","))) <= PROJECT["optional-dependencies"].keys(), package


@pytest.mark.parametrize("block", every("bash", "console"), ids=str)
def test_a_block_of_commands_is_understood(block: Block, folder: Path) -> None:
    assert commands(block)
    for command in commands(block):
        understand(command)


@pytest.mark.parametrize("block", [block for block in every("diff") if " -m " in block.code], ids=str)
def test_both_sides_of_a_changed_command_are_understood(block: Block) -> None:
    for sign in "-+":
        kept = [line[1:] for line in block.code.splitlines() if line[0] in (" ", sign)]
        understand(" ".join(line.rstrip("\\ ") for line in kept))


def test_commands_in_running_text_are_understood(folder: Path) -> None:
    found = inline_commands()
    assert len(found) > 15
    for page, command in found:
        try:
            understand(command)
        except (AssertionError, SystemExit, pytest.fail.Exception) as error:
            pytest.fail(f"{page.relative_to(ROOT)}: `{command}`: {error}")


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pip install 'clipo[nothing]'",
        "clipo train my.yaml --nothing 1",
        "clipo train my.yaml --preset nothing",
        "clipo report RUN --nothing",
        "clipo study STUDY.yaml --nothing 1",
        "python nothing.py",
        "python -m clipo_train.nothing",
        "accelerate launch --config_file nothing.yaml -m clipo_train.cli train my.yaml",
        "nothing",
    ],
)
def test_what_is_no_command_is_not_understood(command: str, folder: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        understand(command)
