"""Evaluations of many samples, the paper's suites, and the check of data by its verifier."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from pyarrow import parquet

from clipo_train.cli import main
from clipo_train.config import TrainConfig
from clipo_train.config.files import load_config
from clipo_train.data import load_examples
from clipo_train.evaluation import evaluate, load_evaluator, per_prompt, summarize
from clipo_train.policy import load_policy
from clipo_train.rollout import Sampling
from clipo_train.rollout.transformers import TransformersEngine
from clipo_train.suites import SUITES
from clipo_train.types import Verdict

FIXTURES = Path(__file__).parent / "fixtures"


def sampled(path: Path, **evaluation: Any) -> TrainConfig:
    """A configuration that evaluates by sampling."""
    config = load_config(path)
    settings = {"temperature": 1.0, "limit": 12, "max_new_tokens": 20} | evaluation
    return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **settings))


def test_many_samples_of_a_real_policy(config_file: Callable[..., Path], warm: Path) -> None:
    metrics = evaluate(sampled(config_file(model={"path": str(warm)}), samples=6))
    values = {key.removeprefix("eval/heldout/"): value for key, value in metrics.items()}
    rising = [values[name] for name in ("accuracy", "pass_at_2", "pass_at_4", "pass_at_6")]
    assert rising == sorted(rising)
    assert 0 < rising[0] < rising[-1] <= 1
    sound = [values[f"process_{name}"] for name in ("accuracy", "pass_at_2", "pass_at_4", "pass_at_6")]
    assert sound == sorted(sound)
    assert all(few <= many for few, many in zip(sound, rising, strict=True))
    assert values["maj_at_6"] >= values["accuracy"]  # a policy that is right more often than wrong in one way
    for name in ("accuracy", "pass_at_6", "maj_at_6", "process_pass_at_4"):
        assert values[f"{name}_low"] <= values[name] <= values[f"{name}_high"]
    assert values["verifier_timeouts"] == 0
    assert not any("_at_1" in name for name in values)


def test_one_sample_has_the_metrics_it_always_had(config_file: Callable[..., Path], warm: Path) -> None:
    metrics = evaluate(sampled(config_file(model={"path": str(warm)})))
    assert {key.removeprefix("eval/heldout/") for key in metrics} == {
        *("accuracy", "accuracy_low", "accuracy_high", "process_wrong_among_right"),
        *("process_accuracy", "process_accuracy_low", "process_accuracy_high"),
        *("response_length", "truncated", "verifier_timeouts"),
    }


def test_the_batch_size_changes_what_is_generated_at_once_only(config_file: Callable[..., Path], warm: Path) -> None:
    config = sampled(config_file(model={"path": str(warm)}), samples=2, top_p=1e-6)  # in effect greedy
    small = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, batch_size=5))
    assert evaluate(config) == evaluate(small)


def test_top_p_leaves_out_what_is_unlikely(warm: Path) -> None:
    from clipo_train.config import ModelConfig

    engine = TransformersEngine(*load_policy(ModelConfig(path=str(warm))))
    ids = [list(engine.tokenizer("1+2+3+4=")["input_ids"])]
    torch.manual_seed(0)
    texts = [set(engine.generate(ids, samples=64, sampling=Sampling(20, 1.0, p)).texts) for p in (1e-6, 0.9, 1.0)]
    assert len(texts[0]) == 1
    assert 1 < len(texts[1]) < len(texts[2])


def test_verdicts_per_prompt() -> None:
    groups = [
        [Verdict(True, 1.0, answer="1"), Verdict(False, 0.0, answer="2"), Verdict(False, 0.0, answer="3")],
        [Verdict(False, 0.0, answer="4")] * 3,
    ]
    values = per_prompt(groups)
    assert values["accuracy"] == pytest.approx([1 / 3, 0])
    assert values["pass_at_2"] == pytest.approx([2 / 3, 0])
    assert values["pass_at_3"] == [1, 0]
    assert values["maj_at_3"] == pytest.approx([1 / 3, 0])
    unread = [[Verdict(True, 1.0), Verdict(False, 0.0)]]
    assert set(per_prompt(unread)) == {"accuracy", "pass_at_2"}
    assert summarize([Verdict(False, 0.0, timed_out=True), Verdict(True, 1.0)])["verifier_timeouts"] == 1


def test_generated_sets_are_not_the_training_set(config_file: Callable[..., Path], warm: Path) -> None:
    options = {"size": 20, "min_digits": 9, "max_digits": 9}
    source = {"train": "reasoning_gym:chain_sum", "options": options, "prompt_suffix": "="}
    config = load_config(
        config_file(data=source, evaluation={"sets": {"chain": "reasoning_gym:chain_sum"}, "verifier": "reasoning_gym"})
    )
    _, tokenizer = load_policy(dataclasses.replace(config.model, path=str(warm)))
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    (evaluated,) = load_evaluator(config, tokenizer, Accelerator()).sets.values()
    trained = load_examples(config.data.train, options=options, seed=config.seed)
    assert not {item.example.answer for item in evaluated} & {item.answer for item in trained}


def test_a_set_of_a_layout_of_its_own(config_file: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "own.jsonl"
    source.write_text(json.dumps({"task": "1+1=", "result": "2"}))
    own = {"source": str(source), "columns": {"prompt": "task", "answer": "result"}}
    config = load_config(config_file(evaluation={"sets": {"own": own, "heldout": "arithmetic:heldout"}}))
    assert {"eval/own/accuracy", "eval/heldout/accuracy", "eval/average/accuracy"} <= set(evaluate(config))


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A folder with the paper's test files: each two sums, in verl's schema."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in [stem for suite in SUITES.values() for stem in suite["sets"]]:
        rows = [
            {"data_source": f"conrl/{name}", "prompt": f"{n}+1=", "reward_model": {"ground_truth": truth}}
            for n, truth in enumerate("AB" if name.startswith(("mmlu", "comm", "truth")) else "12")
        ]
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(("suite", "sets", "metric"), [("track1", 8, "accuracy"), ("track2", 6, "pass_at_16")])
def test_the_papers_suites(
    suite: str,
    sets: int,
    metric: str,
    config_file: Callable[..., Path],
    paper: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    chosen = ["--suite", suite, "--data", str(paper), "--evaluation.max_new_tokens", "4"]
    assert main(["eval", str(config_file(data={"prompt_suffix": "="})), *chosen]) == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)
    assert sum(key.endswith(f"/{metric}") for key in metrics) == sets + (metric == "accuracy")
    assert "average" in printed.err
    assert SUITES[suite]["sets"][0] in printed.err


def test_verify_data(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    odd = tmp_path / "odd.jsonl"
    rows = [{"q": "?", "a": "E"}, {"q": "?", "a": "EE"}, {"q": "?", "a": "F", "verifier": "math"}]
    odd.write_text("".join(json.dumps({"source": "mmlu", **row}) + "\n" for row in rows))
    arguments = [str(odd), "--prompt", "q", "--answer", "a"]
    assert main(["verify-data", *arguments]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {
            "data": str(odd),
            "row": 1,
            "wrong on": "truth",
            "answer": "EE",
            "completion": "The answer is \\boxed{EE}.",
        }
    ]
    assert "multiple_choice" in printed.err
    assert main(["verify-data", str(FIXTURES / "gsm8k_rows.parquet"), "--limit", "4", "--verifier", "exact_match"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("4 ") >= 4
