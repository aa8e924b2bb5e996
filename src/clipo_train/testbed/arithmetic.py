"""Arithmetic modulo 10 with a scratchpad: the task, its checker, and demonstrations of mixed quality.

A prompt such as `3+4-2+1=` asks for the value of a chain of additions and subtractions of 1..4, modulo 10. A response
works it out step by step and gives the answer after a hash:

    response = step (";" step)* "#" digit        step = digit ("+" | "-") digit "=" digit

as in `3+4=7;7-2=5;5+1=6#6`. The OUTCOME is right if what follows the hash is the value. The PROCESS is right if
moreover every operation has its step, each begins with the value before it, and each result is right: that is, if the
response is exactly the one above. A response can be right in outcome and wrong in process, which is what a reward on
outcomes alone cannot see.
"""

import itertools
import random
import zlib
from collections.abc import Iterator

from clipo_train.types import Example, Verdict

SPLITS = ("train", "heldout", "long", "rep")
"""`train` and `heldout`: 3 operations, told apart by a hash. `long`: 4 or 5 operations. `rep`: 3 operations, all minus,
with an operand that follows itself; no other split has such problems."""

CHARACTERS = "0123456789+-=;#"
"""All that prompts and responses are written with."""

OPERATIONS = 3
"""Operations of a training problem."""

QUALITIES = {"clean": 0.19, "jump": 0.03, "skip": 0.15, "slip": 0.48, "wrong": 0.15}
"""Shares of the demonstrations of the warm start; see `demonstration`."""

_LONG_COUNT = 512


def problems(split: str) -> list[Example]:
    """The problems of a split, always the same ones in the same order.

    Raises:
        KeyError: Unknown split.
    """
    if split == "long":
        return [_example(prompt, split) for prompt in _long_prompts()]
    keep = {
        "train": lambda prompt: not is_heldout(prompt) and not _repeats(prompt),
        "heldout": lambda prompt: is_heldout(prompt) and not _repeats(prompt),
        "rep": _repeats,
    }[split]
    return [_example(prompt, split) for prompt in _all_prompts() if keep(prompt)]


def verify(example: Example, completion: str) -> Verdict:
    """Checks outcome and process of a response; the reward is 1 for a right outcome, else 0."""
    _, _, answer = completion.partition("#")
    success = answer == example.answer
    prompt = example.prompt if isinstance(example.prompt, str) else example.prompt[-1]["content"]
    return Verdict(success, float(success), process=completion == solution(prompt), answer=answer)


def solution(prompt: str) -> str:
    """The one response to a prompt that is right in outcome and process."""
    value, steps = _work(prompt)
    return ";".join(steps) + f"#{value}"


def random_prompt(rng: random.Random, operations: int) -> str:
    """A problem that no evaluation contains."""
    while True:
        prompt = _random_prompt(rng, operations)
        if operations < OPERATIONS or not (is_heldout(prompt) or _repeats(prompt)):
            return prompt


def demonstration(rng: random.Random, prompt: str, *, same_slip: bool = False) -> str:
    """A response of mixed quality, drawn by `QUALITIES`.

    clean: right. jump: the right answer without a step. skip: one step is left out. slip: one step's result is wrong,
    but what follows goes on from the right value. wrong: right steps, wrong answer. Only the first is right in process;
    all but the last are right in outcome. With `same_slip` all slips are one, the second step's result one too high, so
    that the most common way to a right answer is a wrong one.
    """
    value, steps = _work(prompt)
    quality = rng.choices(list(QUALITIES), weights=list(QUALITIES.values()))[0]
    place = rng.randrange(len(steps))
    error = rng.randrange(1, 10)
    if quality == "slip" and same_slip:
        place, error = 1, 1
    match quality:
        case "jump":
            steps = []
        case "skip":
            del steps[place]
        case "slip":
            steps[place] = steps[place][:-1] + str((int(steps[place][-1]) + error) % 10)
        case "wrong":
            value = (value + error) % 10
    return ";".join(steps) + f"#{value}"


def is_heldout(prompt: str) -> bool:
    """True for the quarter of all problems that nothing is trained on."""
    return zlib.crc32(prompt.encode()) % 4 == 0


def _work(prompt: str) -> tuple[int, list[str]]:
    """Value and steps of a problem."""
    value, steps = int(prompt[0]), []
    for sign, operand in zip(prompt[1:-1:2], prompt[2:-1:2], strict=True):
        result = (value + int(sign + operand)) % 10
        steps.append(f"{value}{sign}{operand}={result}")
        value = result
    return value, steps


def _example(prompt: str, split: str) -> Example:
    return Example(prompt, str(_work(prompt)[0]), source=f"arithmetic:{split}")


def _join(operands: tuple[str, ...], signs: tuple[str, ...]) -> str:
    return operands[0] + "".join(sign + operand for sign, operand in zip(signs, operands[1:], strict=True)) + "="


def _all_prompts() -> Iterator[str]:
    for operands in itertools.product("1234", repeat=OPERATIONS + 1):
        for signs in itertools.product("+-", repeat=OPERATIONS):
            yield _join(operands, signs)


def _random_prompt(rng: random.Random, operations: int) -> str:
    return _join(tuple(rng.choices("1234", k=operations + 1)), tuple(rng.choices("+-", k=operations)))


def _long_prompts() -> list[str]:
    rng = random.Random(0)  # noqa: S311 - a fixed selection, no secret
    chosen: dict[str, None] = {}
    while len(chosen) < _LONG_COUNT:
        prompt = _random_prompt(rng, rng.choice((OPERATIONS + 1, OPERATIONS + 2)))
        if is_heldout(prompt) and not _repeats(prompt):
            chosen[prompt] = None
    return list(chosen)


def _repeats(prompt: str) -> bool:
    """True if all operations are minus and an operand follows itself."""
    operands = prompt[0:-1:2]
    return "+" not in prompt and any(a == b for a, b in itertools.pairwise(operands))
