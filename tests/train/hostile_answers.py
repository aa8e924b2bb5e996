"""Judges hostile answers to every task of reasoning-gym, and prints what ran because of them as JSON.

Usage: python hostile_answers.py SENTINEL, in an empty folder. An audit hook sees all that Python runs or opens.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import reasoning_gym as gym
from reasoning_gym.factory import DATASETS

from clipo_train.judges import _reasoning_gym, _safe_answers
from clipo_train.types import Example

EVALUATED = {"sympy", "*", "Integer", "Float", "Symbol", "pi", "C", "x", "X", "y"} | _safe_answers._FUNCTIONS
"""Names that code run by SymPy's parser may have; it begins with `from sympy import *`."""
FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.", "builtins.input", "code.__new__")
SHAPES: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: f"<answer>{text}</answer>",
    lambda text: f"So the answer is \\boxed{{{text}}}.",
    lambda text: f"<answer>[{text}]</answer>",
    lambda text: f"<answer>[[{text}, 1], [2, 3]]</answer>",
    lambda text: f"<answer>{json.dumps([text])}</answer>",
    lambda text: f"<answer>{json.dumps({'A': text})}</answer>",
    lambda text: f"<answer>x + {text}</answer>",
    lambda text: f"Answer:\n```python\n{text}\n```",
)


def payloads(sentinel: str) -> list[str]:
    """Answers that would write the sentinel, patch the judge, or take all time and memory."""
    write = f"open('{sentinel}', 'w').close()"
    judge = "__import__('clipo_train.judges._reasoning_gym', fromlist=['x'])"
    return [
        f"__import__('os').system('touch {sentinel}')",
        f"__import__('subprocess').Popen(['touch', '{sentinel}'])",
        write,
        f"__import__('pathlib').Path('{sentinel}').touch()",
        "().__class__.__bases__[0].__subclasses__()",
        f"(lambda: {write})()",
        f"[{write} for _ in [1]]",
        f"{{{write} for _ in [1] for _ in [2]}}",
        f"f'{{{write}}}'",
        f"(y := {write})",
        f'exec("{write}")',
        f'eval("{write}")',
        f'S("{write}")',
        f'sympify("{write}")',
        f"Symbol.__init__.__globals__['__builtins__']['open']('{sentinel}', 'w')",
        f"sin.__class__.__init__.__globals__['sys'].modules['os'].system('touch {sentinel}')",
        "Integer(1).__class__",
        f"setattr({judge}, '_score', lambda *_: 1.0)",
        f"{judge}._scorer.__wrapped__.__globals__.update(_score=lambda *_: 1.0)",
        "setattr(__import__('builtins'), 'float', lambda *_: 1.0)",
        "oracle_answer",
        "answer",
        "self.__class__.score_answer",
        "9**9**9**9",
        "((9**50)**50)**50",
        "1e999999999",
        "1e-999999999",
        "factorial(99999999)",
        "99999999!!",
        "1 << 99999999999",
        "'a'*10**10",
        "[0]*10**10",
        "(" * 5000 + "1" + ")" * 5000,
        "[" * 5000 + "]" * 5000,
        "-" * 5000 + "1",
        "9" * 9000,
        "R999999999",
        "A+999999999",
        "1\x00" + write,
        "\ud800",
        "%s%n{0.__class__}{entry}",
        "{0.__class__.__init__.__globals__}",
        "(a+)+$" + "a" * 40 + "!",
        f"1 # {write}",
        f"1\n{write}",
        f"1;{write}",
        f"\u00f0\uff4f\uff50en('{sentinel}', 'w')",
    ]


def with_text(value: Any, text: str) -> Any:
    """An entry with every text in it replaced, as a data file could have it."""
    if isinstance(value, dict):
        return {name: with_text(item, text) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_text(item, text) for item in value]
    return text if isinstance(value, str) else value


def cases(task: str, entry: dict[str, Any], sentinel: str) -> Iterator[tuple[Example, str]]:
    metadata = {"task": task, "options": {"size": 1, "seed": 0}, "entry": entry}
    for payload in payloads(sentinel):
        for shape in SHAPES:
            yield Example("?", str(entry["answer"]), task, metadata), shape(payload)
        options = {"data_file": payload, "max_value": payload, "max_num_decimal_places": payload}
        foreign = {"task": task, "options": options, "entry": with_text(entry, payload)}
        yield Example("?", payload, task, foreign), f"<answer>{payload} </answer>"
        yield Example("?", payload, task, foreign), "<answer>1</answer>"
        yield Example("?", payload, payload, {**foreign, "task": payload}), "<answer>1</answer>"


def main(sentinel: str) -> None:
    entries = {task: gym.create_dataset(task, size=1, seed=0)[0] for task in sorted(DATASETS) if task != "composite"}
    examples = {
        task: Example("?", str(entry["answer"]), task, {"task": task, "options": {}, "entry": entry})
        for task, entry in entries.items()
    }
    for example in examples.values():  # imports all that scorers need
        for answer in ("1", "[1]", "x", "[[1]]", '["a"]', example.answer):
            _reasoning_gym.reasoning_gym(example, answer)
    before = dict(vars(_reasoning_gym)), dict(vars(_safe_answers))
    armed, ran, accepted, answer = True, [], [], ""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not armed:
            return
        code = args[0] if event == "exec" else None
        if (
            (event == "exec" and not set(getattr(code, "co_names", ("?",))) <= EVALUATED)
            or event.startswith(FORBIDDEN)
            or (event == "open" and str(args[1]) not in ("r", "rb"))
        ):
            ran.append(f"{event} {getattr(code, 'co_names', args)!r} by {answer!r}"[:200])

    sys.addaudithook(hook)
    for task, entry in entries.items():
        for example, answer in cases(task, entry, sentinel):
            verdict = _reasoning_gym.reasoning_gym(example, answer)
            if verdict.success and example.metadata["entry"] is entry:
                accepted.append((task, answer[:80]))
    armed = False
    patched = (dict(vars(_reasoning_gym)), dict(vars(_safe_answers))) != before
    found = {"ran": ran, "accepted": accepted, "patched": patched, "written": Path(sentinel).exists()}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
