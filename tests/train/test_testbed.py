"""The arithmetic test bed: its checker, its splits, its demonstrations and its warm start."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from clipo_train.testbed.arithmetic import (
    CHARACTERS,
    QUALITIES,
    SPLITS,
    demonstration,
    is_heldout,
    problems,
    random_prompt,
    solution,
    verify,
)
from clipo_train.testbed.warm_start import build_model, build_tokenizer, warm_start
from clipo_train.types import Example

PROMPTS = [example for split in SPLITS for example in problems(split)]


def python_value(prompt: str) -> int:
    return int(eval(prompt[:-1])) % 10  # noqa: S307 - digits and signs


@given(st.sampled_from(PROMPTS))
def test_the_solution_is_right_in_outcome_and_process(example: Example) -> None:
    assert example.answer == str(python_value(str(example.prompt)))
    verdict = verify(example, solution(str(example.prompt)))
    assert (verdict.success, verdict.reward, verdict.process) == (True, 1.0, True)


@given(st.sampled_from(PROMPTS), st.data())
def test_any_changed_character_makes_the_process_wrong(example: Example, data: st.DataObject) -> None:
    text = solution(str(example.prompt))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([character for character in CHARACTERS if character != text[place]]))
    changed = text[:place] + other + text[place + 1 :]
    verdict = verify(example, changed)
    assert verdict.process is False
    assert verdict.success == (changed.partition("#")[2] == example.answer)


@given(st.sampled_from(PROMPTS), st.text(CHARACTERS, max_size=30))
def test_the_checker_takes_any_text(example: Example, text: str) -> None:
    verdict = verify(example, text)
    assert verdict.reward == float(verdict.success)
    assert verdict.success or not verdict.process


def test_splits_are_disjoint_and_the_same_every_time() -> None:
    prompts = [str(example.prompt) for example in PROMPTS]
    assert len(set(prompts)) == len(prompts)
    counts = Counter(example.source for example in PROMPTS)
    assert counts == {
        "arithmetic:train": 1426,
        "arithmetic:heldout": 474,
        "arithmetic:long": 512,
        "arithmetic:rep": 148,
    }
    assert problems("long") == problems("long")


@given(st.integers(0, 2**32), st.integers(3, 5))
def test_the_warm_start_sees_nothing_that_is_evaluated(seed: int, operations: int) -> None:
    prompt = random_prompt(random.Random(seed), operations)
    assert not is_heldout(prompt)
    assert prompt not in {example.prompt for example in problems("rep")}


def test_demonstrations_have_the_documented_shares() -> None:
    rng, count = random.Random(0), 20_000
    outcome = process = 0
    for _ in range(count):
        prompt = random_prompt(rng, 3)
        verdict = verify(Example(prompt, str(python_value(prompt)), "s"), demonstration(rng, prompt))
        outcome += verdict.success
        process += bool(verdict.process)
    assert outcome / count == pytest.approx(1 - QUALITIES["wrong"], abs=0.01)
    assert process / count == pytest.approx(QUALITIES["clean"], abs=0.01)
    assert sum(QUALITIES.values()) == pytest.approx(1)


def test_the_tokenizer_has_a_token_per_character(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    for tokenizer in (build_tokenizer(), AutoTokenizer.from_pretrained(tmp_path)):
        ids = tokenizer(CHARACTERS)["input_ids"]
        assert len(tokenizer) == 17
        assert ids == list(range(15))
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == CHARACTERS
        assert tokenizer.padding_side == "left"


def test_the_policy_has_108k_parameters() -> None:
    assert sum(parameter.numel() for parameter in build_model(0).parameters()) == 108_288


def test_a_warm_start_depends_on_its_seed_alone() -> None:
    models = []
    for seed, disturbance in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        seen: list[tuple[int, int]] = []
        model, _ = warm_start(seed, steps=4, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert torch.get_rng_state().equal(before)
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert not model.training
        models.append(model.state_dict())
    assert all(models[0][name].equal(models[1][name]) for name in models[0])
    assert not all(models[0][name].equal(models[2][name]) for name in models[0])


def test_the_same_slip_is_the_most_common_way_to_a_right_answer() -> None:
    rng = random.Random(0)
    ways = Counter(demonstration(rng, "1+1+1+1=", same_slip=True) for _ in range(4000))
    way, count = ways.most_common(1)[0]
    assert way == "1+1=2;2+1=4;3+1=4#4"
    assert abs(count / 4000 - QUALITIES["slip"]) < 0.03
