"""Whatever is wrong with what a user gives: one line that says what was wanted, status 2, and nothing is touched."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet
from transformers import T5Config

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.testbed.warm_start import build_model
from clipo_train.trainer import Trainer
from clipo_train.verifier_worker import HERE

from . import bad_files, bad_models, bad_runs
from .bad_files import Group
from .bad_input import CASES, Case

LONGEST = 330
"""Characters of a message, with the command."""

ROWS: dict[str, list[Any]] = {
    "good.jsonl": [{"prompt": "1+1=", "answer": "2"}],
    "no_prompt.jsonl": [{"answer": "1"}],
    "no_answer.jsonl": [{"prompt": "1", "answer": "1"}, {"prompt": "1"}],
    "null.jsonl": [{"prompt": "1", "answer": None}],
    "number.jsonl": [{"prompt": 3, "answer": "1"}],
    "list.jsonl": [[1]],
    "empty_prompt.jsonl": [{"prompt": "", "answer": "1"}],
    "no_role.jsonl": [{"prompt": [{"content": "1"}], "answer": "1"}],
    "strings.jsonl": [{"prompt": ["1"], "answer": "1"}],
    "chat.jsonl": [{"prompt": [{"role": "user", "content": "1"}], "answer": "1"}],
    "empty.jsonl": [],
}
CONFIGS = {
    "list.yaml": "- a\n- b",
    "broken.yaml": "a: b: c",
    "latin.yaml": b"run_dir: caf\xe9",
    "number.yaml": "1: 2",
    "empty.yaml": "",
    "stepz.yaml": "stepz: 3",
    "temprature.yaml": "clipo: {temprature: 1}",
    "twice.yaml": "clipo: {dim: 3}\nsteps: 3\nclipo:\n  weight: 1",
    "twice_inside.yaml": "clipo: {dim: 3, dim: 3}",
    "itself.yaml": "data: &data {options: *data}",
    "deep.yaml": f"data: {{options: {{a: {'[' * 1000}{']' * 1000}}}}}",
    "bomb.yaml": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "date.yaml": "steps: 2026-99-99",
    "digits.yaml": f"steps: {'9' * 5000}",
    "escape.yaml": "steps: \x1b[31m",
    "line_break.yaml": '"a\\nb": 3',
    "nul.yaml": 'run_dir: "a\\0b"',
    "long_list.yaml": f"steps: {list(range(9999))}",
    "section.yaml": "clipo: 3",
    "many.yaml": "steps: many",
    "betas.yaml": "optimizer: {betas: [1, 2, 3]}",
    "nan.yaml": "clipo: {temperature: .nan}",
    "infinite.yaml": "optimizer: {learning_rate: .inf}",
    "bare.yaml": "model: {path: model}",
    "tag.yaml": "run_dir: !!python/object/apply:os.mkdir [executed]",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, untrained: Path) -> Path:
    """A folder with a configuration, its model and data, and a finished run of it."""
    folder = tmp_path_factory.mktemp("bad")
    values = {
        "run_dir": str(folder / "done"),
        "steps": 2,
        "model": {"path": "model"},
        "rollout": {"batch_size": 16, "group_size": 4, "max_new_tokens": 8},
        "optimizer": {"minibatch_size": 8, "micro_batch_size": 8},
        "clipo": {"dim": 16},
        "evaluation": {"sets": {"heldout": "arithmetic:heldout"}, "limit": 2},
    }
    shutil.copytree(untrained, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(values | {"run_dir": "new"}))
        Trainer(load_config(Path("config.yaml"), ["--run_dir", "done"])).train()
    return folder


@pytest.fixture
def world(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that, with everything that can be wrong, as the working directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for name, text in CONFIGS.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, rows in ROWS.items():
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "broken.jsonl").write_text("{'prompt': 1}\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "answer": "1"}\n')
    (tmp_path / "broken.parquet").write_text("hello")
    parquet.write_table(pa.table({"prompt": ["q"]}), tmp_path / "column.parquet")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "config.yaml").write_text("steps: 2")
    break_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def break_models(folder: Path) -> None:
    for name in ("truncated", "no_tokenizer", "no_config", "no_weights", "pickled", "no_end", "encoder", "small"):
        shutil.copytree(folder / "model", folder / name)
    weights = (folder / "model" / "model.safetensors").read_bytes()
    (folder / "truncated" / "model.safetensors").write_bytes(weights[:1000])
    (folder / "no_tokenizer" / "tokenizer.json").unlink()
    (folder / "no_config" / "config.json").write_text("{")
    for name in ("no_weights", "pickled"):
        (folder / name / "model.safetensors").unlink()
    torch.save(build_model(0).state_dict(), folder / "pickled" / "pytorch_model.bin")
    settings = json.loads((folder / "no_end" / "tokenizer_config.json").read_text())
    (folder / "no_end" / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / "no_end" / name).read_text())
        (folder / "no_end" / name).write_text(json.dumps(settings | {"eos_token_id": None}))
    T5Config().save_pretrained(folder / "encoder")
    model = build_model(0)
    model.resize_token_embeddings(8)
    for settings in (model.config, model.generation_config):
        settings.pad_token_id = settings.eos_token_id = None
    model.save_pretrained(folder / "small")


def refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of bad input: one line."""
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert len(error) <= LONGEST
    assert re.fullmatch(r"clipo \S+: \S.*?: expected .+, got .*\n", error)
    return error.split(": ", 1)[1]


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, but for locks and what Python caches."""
    paths = [path for path in folder.rglob("*") if path.name not in (".lock", "__pycache__") and path.suffix != ".pyc"]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda case: case.arguments.replace(" ", "_")[:60],
)
def test_one_line_and_nothing_touched(case: Case, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(world)
    assert refused(case.arguments, capsys).startswith(case.message)
    assert contents(world) == before


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, id=f"{group.file}-{name!r}")
        for group in (*bad_files.GROUPS, *bad_models.GROUPS, *bad_runs.GROUPS)
        for name in group.cases
    ],
)
def test_a_file_that_is_not_what_it_should_be(
    group: Group, name: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "scorer", raising=False)
    monkeypatch.setitem(HERE, "scorer:score", lambda *_: True)  # a worker takes seconds to start, and judges alike
    content, message = group.cases[name]
    path = world / group.file
    if callable(content):
        content(path)
    elif isinstance(content, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = contents(world)
    assert refused(group.arguments, capsys).startswith(group.message + message)
    assert contents(world) == before
