"""Which prompts a step has, and dynamic sampling."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from clipo_train.collector import Collector
from clipo_train.config import RolloutConfig
from clipo_train.config.files import load_config
from clipo_train.metrics import Stopwatch
from clipo_train.policy import EncodedExample
from clipo_train.report import load_metrics
from clipo_train.rollout import Generation, Rollouts, Sampling
from clipo_train.trainer import Trainer
from clipo_train.types import Example
from clipo_train.verifiers import load_verifier

SIZE = 4  # rollouts a prompt


class Scripted:
    """An engine that answers prompt [n] rightly n % 5 times of four; its padding differs from call to call."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        numbers = [prompt[0] for prompt in prompts]
        self.asked.append(numbers)
        left = 1 + len(self.asked) % 3
        right = sampling.max_new_tokens - left
        rows = [n for n in numbers for _ in range(samples)]
        tokens = torch.zeros(len(rows), left + right, dtype=torch.int64)
        tokens[:, left - 1] = tokens[:, left] = torch.tensor(rows)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        mask[:, left - 1 : left + 1] = True
        texts = ["yes" if i < n % 5 else "no" for n in numbers for i in range(samples)]
        return Generation(tokens, mask, mask[:, left:], texts, mask[:, left], tokens[:, left:].float())

    def sync(self) -> None: ...

    def close(self) -> None: ...


def collector(total: int = 12, batch: int = 3, rounds: int = 4, *, dynamic: bool = True) -> tuple[Collector, Scripted]:
    engine = Scripted()
    examples = [EncodedExample(Example(f"{n}", "yes", "test"), [n]) for n in range(total)]
    config = RolloutConfig(
        batch_size=batch * SIZE,
        group_size=SIZE,
        max_new_tokens=9,
        dynamic_sampling=dynamic,
        max_sampling_rounds=rounds,
    )
    accelerator = Accelerator(cpu=True)
    clock = Stopwatch(accelerator.device)
    verifier = load_verifier("exact_match")
    return Collector(examples, engine, verifier, config, seed=3, accelerator=accelerator, clock=clock), engine


def numbers(rollouts: Rollouts) -> list[int]:
    """The prompt of each group, once it is clear that everything in a group is of that prompt."""
    found = [int(example.prompt) for example in rollouts.examples]
    generation = rollouts.generation
    assert generation.response[:, 0].tolist() == found
    assert generation.tokens[generation.attention_mask].view(-1, 2).T.tolist() == [found, found]
    assert generation.logprobs is not None
    assert generation.logprobs[:, 0].tolist() == found
    assert [text == "yes" for text in generation.texts] == rollouts.success.tolist()
    groups = [found[start : start + SIZE] for start in range(0, len(found), SIZE)]
    assert all(len(set(group)) == 1 for group in groups)
    return [group[0] for group in groups]


def mixed(number: int) -> bool:
    return 0 < number % 5 < SIZE


def test_without_dynamic_sampling_every_epoch_has_every_prompt_once() -> None:
    subject, engine = collector(dynamic=False)
    drawn = [number for _ in range(8) for number in numbers(subject.collect())]
    assert [sorted(drawn[:12]), sorted(drawn[12:])] == [list(range(12))] * 2
    assert drawn[:12] != drawn[12:]
    assert [number for asked in engine.asked for number in asked] == drawn
    assert subject.metrics == {}
    other, _ = collector(dynamic=False)
    other.prompts = 5 * 3  # a resumed run
    assert [number for _ in range(3) for number in numbers(other.collect())] == drawn[15:]


def test_further_prompts_are_sampled_until_all_groups_are_mixed() -> None:
    subject, engine = collector()
    for _ in range(6):
        before = len(engine.asked)
        batch = numbers(subject.collect())
        asked = [number for numbers in engine.asked[before:] for number in numbers]
        assert batch == [number for number in asked if mixed(number)][:3]  # in the order of sampling
        assert sum(map(mixed, asked[:-3])) < 3  # no round too many
        assert subject.metrics["sampling_rounds"] == len(asked) / 3
        right = sum(number % 5 for number in asked)
        assert subject.metrics["sampled_accuracy"] == pytest.approx(right / (len(asked) * SIZE))
    assert len(engine.asked) > 6
    assert subject.prompts == 3 * len(engine.asked)


def test_at_the_bound_the_batch_is_filled_up() -> None:
    subject, engine = collector(batch=6, total=60, rounds=1)
    first = numbers(subject.collect())
    assert first == engine.asked[0]
    assert not all(map(mixed, first))

    subject, engine = collector(batch=11, total=12, rounds=3)
    subject.examples = [item for item in subject.examples if not mixed(item.prompt_ids[0])]  # hopeless
    batch = numbers(subject.collect())
    assert batch == engine.asked[0]  # what was sampled first
    assert subject.metrics["sampling_rounds"] == 3

    subject, engine = collector(batch=8, total=40, rounds=2)
    hard = [item for item in subject.examples if not mixed(item.prompt_ids[0])]
    subject.examples = hard + [item for item in subject.examples if mixed(item.prompt_ids[0])][:2]
    batch = numbers(subject.collect())
    asked = [number for numbers in engine.asked for number in numbers]
    assert batch == [n for n in asked if mixed(n)] + [n for n in asked if not mixed(n)][: 8 - sum(map(mixed, asked))]
    assert 0 < sum(map(mixed, batch)) < 8


@pytest.fixture
def train(config_file: Callable[..., Path], warm: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(name: str, *arguments: str) -> Path:
        config = config_file(
            steps=3,
            model={"path": str(warm)},
            rollout={"max_new_tokens": 24, "dynamic_sampling": True, "max_sampling_rounds": 6},
            evaluation={"sets": {}},
        )
        return Trainer(load_config(config, ["--run_dir", str(tmp_path / name), *arguments])).train().parent

    return run


def test_a_trained_batch_is_informative(train: Callable[..., Path]) -> None:
    steps = load_metrics(train("full"))[1:]
    assert all(step["rollout/informative"] == 1 for step in steps)
    assert max(step["rollout/sampling_rounds"] for step in steps) > 1
    assert all(step["rollout/sampled_accuracy"] > 0 for step in steps)
    bounded = load_metrics(train("bounded", "--rollout.max_sampling_rounds", "1"))[1:]
    assert all(step["rollout/sampling_rounds"] == 1 for step in bounded)
    assert min(step["rollout/informative"] for step in bounded) < 1


def test_a_resumed_run_goes_on_with_the_same_prompts(train: Callable[..., Path]) -> None:
    unbroken = train("unbroken")
    train("broken", "--steps", "2")
    resumed = train("broken", "--resume")
    expected = load_file(unbroken / "final" / "model.safetensors")
    actual = load_file(resumed / "final" / "model.safetensors")
    assert all(value.equal(expected[name]) for name, value in actual.items())
    untimed = [
        {name: value for name, value in load_metrics(run)[-1].items() if not name.startswith("time/")}
        for run in (unbroken, resumed)
    ]
    assert untimed[0] == untimed[1]
