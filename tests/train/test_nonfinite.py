"""A run never destroys itself in silence: what is not finite is skipped, counted, shown, and in the end refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from clipo_train.cli import main
from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError, NonFiniteError
from clipo_train.head import ClipoHead
from clipo_train.manifest import write_manifest
from clipo_train.report import load_metrics, write_report
from clipo_train.rollout import Sampling
from clipo_train.rollout.transformers import TransformersEngine
from clipo_train.testbed.warm_start import build_model, build_tokenizer
from clipo_train.trainer import Trainer


class Overflowing(Trainer):
    """A trainer in which some gradients overflow.

    Attributes:
        bad_steps: In these the first gradient of the step is multiplied by `factor`.
        every: Also the step's later gradients.
    """

    bad_steps: frozenset[int] = frozenset()
    factor = math.inf
    every = False

    def before_step(self) -> None:
        if self.step in self.bad_steps:
            weight = next(self.learner.policy.parameters())
            handle = weight.register_hook(lambda grad: self._overflow(grad, handle))

    def _overflow(self, grad: Tensor, handle: Any) -> Tensor:
        if not self.every:
            handle.remove()
        return grad * self.factor


def finite(folder: Path) -> bool:
    return all(bool(weight.isfinite().all()) for weight in load_file(folder / "model.safetensors").values())


@pytest.fixture
def trainer(config_file: Callable[..., Path]) -> Callable[..., Overflowing]:
    def make(steps: int = 3, **attributes: Any) -> Overflowing:
        config = load_config(config_file(steps=steps, checkpoint={"every": 1, "keep": 2}))
        subject = Overflowing(config, show_progress=False)
        for name, value in attributes.items():
            setattr(subject, name, value)
        return subject

    return make


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_one_overflow_costs_one_update(trainer: Callable[..., Overflowing], factor: float) -> None:
    subject = trainer(bad_steps={2}, factor=factor)
    run = subject.train().parent
    metrics = {int(row["step"]): row for row in load_metrics(run)}
    assert [metrics[step]["policy/skipped_updates"] for step in (1, 2, 3)] == [0, 1, 0]
    assert not math.isfinite(metrics[2]["policy/grad_norm"])
    assert json.loads((run / "metrics.jsonl").read_text().split("\n")[2])["policy/grad_norm"] is None
    assert all(map(finite, [run / "final", *run.glob("checkpoints/*/policy")]))
    page = write_report(run).read_text()
    assert "Updates skipped because their loss or gradient was not finite: steps 2." in page
    assert "policy/grad_norm was not finite: steps 2." in page


def test_a_skipped_update_leaves_weights_and_schedule_alone(trainer: Callable[..., Overflowing]) -> None:
    subject = trainer(steps=1, bad_steps={1}, every=True)
    before = {name: weight.detach().clone() for name, weight in subject.learner.policy.named_parameters()}
    subject.train()
    assert subject.learner.skipped_in_row == 2
    assert all(torch.equal(weight, before[name]) for name, weight in subject.learner.policy.named_parameters())
    assert subject.learner.optimizer.state_dict()["state"] == {}


def test_overflow_after_overflow_stops_the_run_and_keeps_its_last_good_checkpoint(
    trainer: Callable[..., Overflowing],
) -> None:
    subject = trainer(steps=6, bad_steps={3, 4}, every=True)
    with pytest.raises(
        NonFiniteError, match=r"^optimizer\.max_skipped: expected .* 3 updates in a row; stopped in ste"
    ):
        subject.train()
    run = subject.config.run_dir
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000003"]
    assert all(finite(run / "checkpoints" / name / "policy") for name in kept)
    assert not (run / "final").exists()
    assert load_metrics(run)[-1] == {"step": 4, "policy/skipped_updates": 3}


def test_weights_that_overflow_are_not_saved(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(checkpoint={"every": 1})
    assert main(["train", str(config), "--optimizer.learning_rate", "1e38", "--optimizer.weight_decay", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "clipo train: policy: expected finite weights, got NaN or inf in them after an update; stop"
    )
    assert error.count("\n") == 1
    assert not list((config.parent / "run" / "checkpoints").glob("*"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_is_not_finite_is_refused(
    config_file: Callable[..., Path], untrained: Path, tmp_path: Path, value: float
) -> None:
    model = AutoModelForCausalLM.from_pretrained(untrained)
    model.get_input_embeddings().weight.data[3, 5] = value
    model.save_pretrained(tmp_path / "broken")
    build_tokenizer().save_pretrained(tmp_path / "broken")
    config = load_config(config_file(), ["--model.path", str(tmp_path / "broken")])
    with pytest.raises(
        ConfigError, match=r"^model\.path: expected finite weights, got NaN or inf in model\.embed_tokens"
    ):
        Trainer(config, show_progress=False)


def test_a_checkpoint_that_is_not_finite_is_refused(config_file: Callable[..., Path]) -> None:
    config = config_file(checkpoint={"every": 1})
    run = Trainer(load_config(config), show_progress=False).train().parent
    path = run / "checkpoints" / "step-00000002" / "policy" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    write_manifest(path.parents[1])
    with pytest.raises(ConfigError, match=r"^resume: expected finite weights, got NaN or inf in model.* of '"):
        Trainer(load_config(config, ["--resume", "--steps", "3"]), show_progress=False).train()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e-40])
def test_decoding_from_logits_that_are_not_numbers_raises(temperature: float) -> None:
    model, tokenizer = build_model(0), build_tokenizer()
    if temperature != 1e-40:  # which makes them infinite by itself
        model.get_input_embeddings().weight.data[2] = math.nan
    with pytest.raises(NonFiniteError, match=r"^policy: expected finite logits, got NaN at response token 1"):
        TransformersEngine(model, tokenizer).generate([[1, 2]], samples=2, sampling=Sampling(4, temperature))


def test_what_is_computed_after_the_end_of_a_response_does_not_matter() -> None:
    model, tokenizer = build_model(0), build_tokenizer()
    end, steps = int(tokenizer.eos_token_id), []

    def one_ends_at_once(_module: Any, _inputs: Any, output: Any) -> None:
        output.logits[:] = torch.zeros(output.logits.shape[-1]).index_fill(0, torch.tensor(3), 1e4)
        output.logits[0] = torch.zeros(output.logits.shape[-1]).index_fill(0, torch.tensor(end), 1e4)
        if steps:
            output.logits[0] = math.nan
        steps.append(len(output.logits))

    engine = TransformersEngine(model, tokenizer)
    model.register_forward_hook(one_ends_at_once)
    prompts = [[1, 2]] * 16  # one ended row of sixteen goes on being computed
    generation = engine.generate(prompts, samples=1, sampling=Sampling(3, 0.0))
    assert steps == [16, 16, 16]
    assert generation.finished.tolist() == [True] + [False] * 15


def test_the_head_skips_a_gradient_that_is_not_finite(config_file: Callable[..., Path]) -> None:
    head = ClipoHead(8, load_config(config_file()).clipo, device="cpu")
    before = head.projection.weight.detach().clone()
    pooled = torch.randn(4, 8)
    pooled[0] = math.inf
    head.step(pooled, torch.tensor([True, True, False, False]), torch.zeros(4, dtype=torch.long))
    assert torch.equal(head.projection.weight, before)


def test_an_evaluation_that_fails_loses_no_training(
    config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_file(evaluation={"initial": False})
    subject = Trainer(load_config(config), show_progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(subject.evaluator, "run", lambda _engine: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            subject.train()
    run = subject.config.run_dir
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    assert [row["step"] for row in load_metrics(run)] == [1]
    Trainer(load_config(config, ["--resume"]), show_progress=False).train()
    last = load_metrics(run)[-1]
    assert last["step"] == 2
    assert {"policy/loss", "eval/heldout/accuracy"} <= set(last)
    assert (run / "final").is_dir()
