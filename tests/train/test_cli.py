"""The `clipo` command: what it prints, and that bad input ends in one line, status 2, and nothing lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.testbed.warm_start import build_model, build_tokenizer
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


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_help_and_wrong_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "clipo train CONFIG.yaml" in capsys.readouterr().out
    for arguments in ([], ["trane"], ["train"], ["train", "--steps"]):
        assert main(arguments) == 2
        assert "usage: clipo" in capsys.readouterr().err


def test_a_missing_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "train", "nope.yaml") == "config: wanted a YAML file, got 'nope.yaml', which is not a file\n"


def test_an_existing_run_is_never_overwritten(
    finished: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    message = refused(capsys, "train", str(config_file()))
    assert message == f"run_dir: wanted a new folder (or resume), got '{finished}', which exists\n"
    assert contents(finished) == before


def test_there_must_be_something_to_resume(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file()
    run_dir = load_config(config).run_dir
    assert "wanted the folder of a run to resume" in refused(capsys, "train", str(config), "--resume")
    assert not run_dir.exists()
    run_dir.mkdir()
    (run_dir / "notes.txt").write_text("mine")
    assert "wanted a checkpoint in" in refused(capsys, "train", str(config), "--resume")
    assert [path.name for path in run_dir.iterdir()] == ["notes.txt"]


def test_a_checkpoint_of_another_model(
    finished: Path, config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    model = build_model(0)
    model.resize_token_embeddings(32)
    model.save_pretrained(other)
    build_tokenizer().save_pretrained(other)
    before = contents(finished)
    message = refused(capsys, "train", str(config_file(steps=4)), "--resume", "--model.path", str(other))
    assert message.startswith("resume: wanted a checkpoint of Qwen2ForCausalLM(hidden_size=64, layers=2, vocab_size=32")
    assert "got Qwen2ForCausalLM(hidden_size=64, layers=2, vocab_size=17" in message
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--clipo.enabled", "false"], "resume: wanted a checkpoint without a head (clipo.enabled), got "),
        (
            ["--clipo.dim", "8"],
            "clipo.dim, clipo.head: wanted a head of shape [(8, 64)], got [(16, 64)] in the checkpoint",
        ),
    ],
)
def test_a_checkpoint_of_another_head(
    arguments: list[str],
    wanted: str,
    finished: Path,
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(finished)
    assert refused(capsys, "train", str(config_file(steps=4)), "--resume", *arguments).startswith(wanted)
    assert contents(finished) == before


def test_a_damaged_checkpoint(
    finished: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "checkpoints" / "step-00000002" / "clipo.json").write_text("{")
    message = refused(capsys, "train", str(config_file(steps=4)), "--resume")
    assert message.startswith("resume: wanted a readable checkpoint, got ")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            ["--model.path", "no/such/model"],
            "model.path: wanted a model that transformers can load, got 'no/such/model'",
        ),
        (["--model.path", "package:no_such"], "model.path: wanted an installed Python package, got 'no_such'"),
        (["--data.train", "no.jsonl"], "data: wanted a file, got 'no.jsonl'"),
        (["--data.verifier", "nonsense"], "data.verifier: wanted one of arithmetic, exact_match"),
        (["--evaluation.sets", "a=arithmetic:b"], "data: wanted arithmetic:SPLIT with one of"),
        (
            ["--rollout.max_prompt_tokens", "3"],
            "rollout.max_prompt_tokens: wanted at least 8, the shortest prompt, got 3",
        ),
        (["--rollout.engine", "vllm"], "rollout.engine: wanted an installed vLLM, got none (No module named 'vllm')"),
        (
            ["--rollout.engine", "vllm", "--rollout.max_new_tokens", "121"],
            "rollout.max_new_tokens: wanted at most 120 after a prompt of 8 tokens, since the model has 128 positions",
        ),
        (["--data.train", "reasoning_gym:chain_sum"], "model.path: wanted a tokenizer with a chat template"),
    ],
)
def test_what_cannot_be_loaded(
    arguments: list[str], wanted: str, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file()
    assert refused(capsys, "train", str(config), *arguments).startswith(wanted)
    assert not load_config(config).run_dir.exists()


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
    assert message.startswith("data.verifier: wanted a ")
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
    arguments = ["--data.train", str(source), "--evaluation.sets", f"rows={source}", "--steps", "1"]
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    config = config_file()
    assert main(["train", str(config), *verifier, *arguments]) == 0
    lines = (load_config(config).run_dir / "metrics.jsonl").read_text().splitlines()
    keys = ("eval/rows/verifier_timeouts", "rollout/verifier_timeouts")
    assert sum(json.loads(line).get(key, 0) for line in lines for key in keys) == 1


def test_eval_without_a_set(config_file: Callable[..., Path], untrained: Path, tmp_path: Path) -> None:
    config = tmp_path / "bare.yaml"
    config.write_text(f"model: {{path: {untrained}}}")
    from clipo_train.evaluation import evaluate

    with pytest.raises(ConfigError, match=r"evaluation.sets: wanted at least one set, got none"):
        evaluate(load_config(config))


def test_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "report", str(tmp_path)).startswith("run: wanted a folder with a metrics.jsonl")
