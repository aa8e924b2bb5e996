"""The whole trainer, from a configuration to a better policy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from clipo_train.config.files import load_config
from clipo_train.report import load_metrics
from clipo_train.trainer import Trainer


@pytest.fixture
def learning_run(config_file: Callable[..., Path], warm: Path) -> Callable[..., Path]:
    """Trains the warm-started policy as the demo does, for a few steps."""

    def run(*overrides: str) -> Path:
        config = config_file(
            steps=12,
            model={"path": str(warm)},
            rollout={"batch_size": 128, "group_size": 8, "max_new_tokens": 24},
            optimizer={"learning_rate": 3e-4, "betas": [0.9, 0.95], "minibatch_size": 64, "micro_batch_size": 64},
            clipo={"dim": 64},
            evaluation={"limit": None, "temperature": 1.0},
        )
        return Trainer(load_config(config, overrides)).train().parent

    return run


@pytest.mark.parametrize("clipo", ["true", "false"])
def test_accuracy_rises_by_a_third_in_twelve_steps(learning_run: Callable[..., Path], clipo: str) -> None:
    metrics = load_metrics(learning_run("--clipo.enabled", clipo))
    before, after = metrics[0]["eval/heldout/accuracy"], metrics[-1]["eval/heldout/accuracy"]
    assert 0.45 < before < 0.65
    assert after > before + 0.25
    assert metrics[-1]["eval/heldout/process_accuracy"] > metrics[0]["eval/heldout/process_accuracy"] + 0.2


def test_every_step_logs_what_the_glossary_lists(learning_run: Callable[..., Path]) -> None:
    run = learning_run("--steps", "2")
    glossary = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for row in load_metrics(run):
        for name in row:
            listed = "eval/<set>/" + name.split("/")[2] if name.startswith("eval/") else name
            assert name == "step" or f"`{listed}`" in glossary
    step = load_metrics(run)[1]
    assert step["reward/total"] == pytest.approx(step["reward/outcome"] + step["reward/contrastive"])
    assert -0.5 <= step["reward/contrastive"] < 0
    assert step["rollout/accuracy"] == step["reward/outcome"]
    assert 0 < step["contrastive/anchor_fraction"] < 1
    assert step["time/step"] >= step["time/update"] > 0


def test_without_clipo_there_is_no_contrastive_reward(learning_run: Callable[..., Path]) -> None:
    step = load_metrics(learning_run("--steps", "1", "--clipo.enabled", "false"))[1]
    assert step["reward/contrastive"] == 0
    assert not any(name.startswith("contrastive/") for name in step)


def test_the_micro_batch_size_does_not_change_the_result(learning_run: Callable[..., Path], tmp_path: Path) -> None:
    weights = []
    for size in ("64", "16"):
        run = tmp_path / size
        learning_run(
            "--run_dir", str(run), "--steps", "1", "--optimizer.micro_batch_size", size, "--loss.kl_weight", "0.01"
        )
        weights.append(load_file(run / "final" / "model.safetensors"))
    for name, value in weights[0].items():
        # AdamW's first steps are of about the learning rate, 3e-4, whatever the gradient's size.
        torch.testing.assert_close(value, weights[1][name], atol=3e-5, rtol=0)


ALGORITHMS = {
    "dr_grpo": ["--preset", "dr_grpo+clipo"],
    "dapo": ["--preset", "dapo+clipo"],
    "gspo": ["--preset", "gspo+clipo"],
    "gmpo": ["--preset", "gmpo+clipo"],
    "luspo": ["--preset", "gspo+clipo", "--loss.aggregation", "seq-mean-token-sum"],
    "vespo": ["--loss.surrogate", "vespo"],
    "dppo": ["--loss.surrogate", "dppo"],
    "cispo": ["--loss.surrogate", "cispo"],
    "sapo": ["--loss.surrogate", "sapo", "--loss.aggregation", "seq-mean-token-mean"],
    "rloo": ["--loss.advantages", "rloo", "--loss.surrogate", "policy_gradient"],
    "opo": ["--loss.advantages", "opo", "--clipo.objective", "centroid"],
    "maxrl": ["--loss.advantages", "maxrl", "--clipo.scope", "cross"],
    "gpg": ["--loss.advantages", "gpg", "--clipo.objective", "sincere", "--clipo.head", "mlp"],
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns(learning_run: Callable[..., Path], algorithm: str) -> None:
    metrics = load_metrics(learning_run("--steps", "6", "--evaluation.limit", "100", *ALGORITHMS[algorithm]))
    accuracies = [row["rollout/accuracy"] for row in metrics[1:]]
    assert max(accuracies[3:]) > accuracies[0] + 0.05
    assert all(0 < row["policy/grad_norm"] < 100 for row in metrics[1:])


def test_warm_up_trains_only_the_head(learning_run: Callable[..., Path], warm: Path) -> None:
    run = learning_run("--steps", "2", "--clipo.warmup_steps", "2")
    before, after = load_file(warm / "model.safetensors"), load_file(run / "final" / "model.safetensors")
    assert all(value.equal(after[name]) for name, value in before.items())
    metrics = load_metrics(run)
    assert "policy/loss" not in metrics[2]
    assert metrics[2]["contrastive/loss"] != metrics[1]["contrastive/loss"]


def test_the_final_policy_is_a_plain_hugging_face_folder(learning_run: Callable[..., Path]) -> None:
    run = learning_run("--steps", "1")
    tokenizer = AutoTokenizer.from_pretrained(run / "final")
    model = AutoModelForCausalLM.from_pretrained(run / "final")
    ids = torch.tensor([tokenizer("3+4-2+1=")["input_ids"]])
    text = tokenizer.decode(model.generate(ids, max_new_tokens=24, do_sample=False)[0], skip_special_tokens=True)
    assert text == "3+4-2+1=3+4=7;7-2=5;5+1=6#6"


def test_old_checkpoints_are_dropped_and_the_trackers_written(learning_run: Callable[..., Path]) -> None:
    run = learning_run(
        "--steps", "4", "--checkpoint.every", "1", "--checkpoint.keep", "2", "--logging.trackers", "tensorboard"
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
    assert list(run.rglob("events.out.tfevents*"))
