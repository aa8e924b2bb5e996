"""Every code block runs, or is read by what it is written for; commands are in test_commands.py."""

import ast
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from clipo_train.config.files import load_config
from clipo_train.study.config import load_study

from .blocks import PAGES, ROOT, Block, blocks, every

STUDY = 'yaml title="a study"'
HERE = {"python", "yaml", "diff", "text", "python .no-test", STUDY}
COMMANDS = {"bash", "console"}


def test_there_is_a_test_for_every_kind_of_block() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 25
    assert {str(block): block.language for block in found if block.language not in HERE | COMMANDS} == {}


def names() -> dict[str, Any]:
    """What a reader has at hand: eight rollouts of two prompts, a model that scores them, and a head."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "torch": torch,
        "model": LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)),
        "tokens": torch.randint(0, 16, (8, 12)),
        "hidden": torch.randn(8, 12, 64),
        "mask": torch.ones(8, 12, dtype=torch.bool),
        "logprobs": -torch.rand(8, 12),
        "old_logprobs": -torch.rand(8, 12),
        "success": torch.arange(8) % 4 < 2,
        "outcome": (torch.arange(8) % 4 < 2).float(),
        "groups": torch.arange(8) // 4,
        "head": torch.nn.Linear(64, 32, bias=False),
    }


def run(code: str, where: object, available: dict[str, Any]) -> str:
    """What a piece of code prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, str(where), "exec"), available)  # noqa: S102 - our own examples
    return output.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=str)
def test_python_runs_and_prints_what_the_page_says(page: Path) -> None:
    """A text block right after a Python block is its output."""
    available, printed = names(), ""
    for block in blocks(page):
        if block.language == "python":
            printed = run(block.code, block, available)
        elif block.language == "text" and block.follows:
            assert printed == block.code
            printed = ""
        assert not printed or block.language == "python", f"{block}: what it prints is not on the page"


def test_what_is_not_run_here_is_part_of_an_example() -> None:
    included = [block.code for block in every("python .no-test")]
    assert len(included) == 1
    assert all(code.startswith('--8<-- "examples/') for code in included)


@pytest.mark.parametrize("block", every("yaml"), ids=str)
def test_yaml_is_a_configuration(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(block.code)
    config = load_config(path)
    assert yaml.safe_load(block.code).keys() <= vars(config).keys()


@pytest.mark.parametrize("block", every(STUDY), ids=str)
def test_a_study_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(block.code)
    assert len(load_study(path).arms) == 3


@pytest.mark.parametrize("block", [b for b in every("diff") if " -m " not in b.code], ids=str)
def test_a_diff_leads_from_python_to_python(block: Block) -> None:
    old, new = (_side(block.code, sign) for sign in "-+")
    assert old != new
    ast.parse(old)
    for module, name in _imports(ast.parse(new)):
        assert name in _definitions(module), f"{block}: {module} has no {name}"


def test_the_loop_of_ones_own_runs_after_its_diff() -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "own-loop.md") if block.language == "diff")
    available = names()
    run("from clipo_ops import grpo_advantages\n" + _side(block.code, "+"), block, available)
    assert available["advantages"].shape == (8,)
    assert available["head"].weight.grad is not None


def _side(diff: str, sign: str) -> str:
    """A diff's text before (-) or after (+)."""
    return "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in (" ", sign))


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What is imported from our packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clipo_"):
            yield from ((node.module or "", alias.name) for alias in node.names)


def _definitions(module: str) -> set[str]:
    """Names of a module, read rather than imported: another stack may be missing here."""
    path = ROOT / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names
