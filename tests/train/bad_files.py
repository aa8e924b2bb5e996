"""Files that are not what they should be, in groups of one place each, and how the line begins that a user gets.

A file's content is text or bytes; an object is merged into the JSON that the file holds; a function changes its path.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Content: TypeAlias = "str | bytes | dict[str, Any] | Callable[[Path], object]"


class Group(NamedTuple):
    """What is given after `clipo`, the file that is wrong, and how each line goes on that begins with `message`."""

    arguments: str
    file: str
    message: str
    cases: Mapping[str, tuple[Content, str]]


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


DEEP, DIGITS = "[" * 100_000, "9" * 5000
TRAIN, RESUME = "train config.yaml", "train config.yaml --run_dir done --steps 4 --resume"

YAML = Group(
    "train bad.yaml",
    "bad.yaml",
    "",
    {
        "json list": ("[1, 2]", "config: expected a mapping of fields in 'bad.yaml', got list"),
        "deep": ("{" * 5000, "config: expected YAML, got 'bad.yaml': "),
        "utf-16": ("steps: 1".encode("utf-16"), "config: expected YAML, got 'bad.yaml': "),
        "open quote": (
            'run_dir: "a',
            "config: expected YAML, got 'bad.yaml': found unexpected end of stream in line 1",
        ),
        "tab": ("clipo:\n\tdim: 3", "config: expected YAML, got 'bad.yaml': found character '\\t' that cannot start "),
        "two documents": (
            "steps: 1\n---\nsteps: 2",
            "config: expected YAML, got 'bad.yaml': but found another document",
        ),
        "no anchor": ("steps: *x", "config: expected YAML, got 'bad.yaml': found undefined alias 'x' in line 1"),
        "key list": ("? [a]\n: b", "config: expected YAML, got 'bad.yaml': found unhashable key in line 1"),
        "bad merge": ("<<: 3", "config: expected YAML, got 'bad.yaml': expected a mapping or list of mappings for mer"),
        "null key": ("~: 3", "None: expected a field of the configuration, got this unknown one"),
        "long key": (f"'{'k' * 3000}': 3", "config: expected YAML, got 'bad.yaml': "),
        "bad tag": ("steps: !!int x", "config: expected YAML, got 'bad.yaml': invalid literal for int()"),
        "python name": (
            "steps: !!python/name:os.system",
            "config: expected YAML, got 'bad.yaml': could not determine a c",
        ),
        "loop": (loop, "config: expected a YAML file, got 'bad.yaml', which is not a file"),
        "pipe": (pipe, "config: expected a YAML file, got 'bad.yaml', which is not a file"),
        "empty section": ("clipo:", "clipo: expected a dictionary or an instance of ClipoConfig, got None"),
        "option names": ("data: {options: {1: 2}}", "data.options.1.[key]: expected a valid string, got 1"),
        "sets": ("evaluation: {sets: [a]}", "evaluation.sets: expected a valid dictionary, got ['a']"),
        "beta 1": ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas.1: expected less than 1, got 1.0"),
        "surrogate": ('run_dir: "\\ud800"', "run_dir: expected text in UTF-8, got '\\ud800'"),
        "model surrogate": (
            'model: {path: "\\ud800"}',
            "model.path: expected a model that transformers can load, got ",
        ),
        "preset": ("preset: [a]", "preset: expected one of grpo, grpo+clipo, "),
        "resume": ("resume: maybe", "resume: expected a valid boolean, unable to interpret input, got 'maybe'"),
    },
)


def row(prompt: str = '"1+1="', answer: str = '"2"', rest: str = "") -> str:
    return f'{{"prompt": {prompt}, "answer": {answer}{rest}}}\n'


def message(role: str = '"user"', content: str = '"1"') -> str:
    return row(f'[{{"role": {role}, "content": {content}}}]')


def verls(rest: str) -> str:
    return f'{{"prompt": "1", {rest}}}\n'


ROWS = Group(
    f"{TRAIN} --data.train bad.jsonl",
    "bad.jsonl",
    "data: expected ",
    {
        "nan": (
            row(answer="NaN"),
            "prompt and answer in line 1 of 'bad.jsonl', got an answer that is NaN, not a finite",
        ),
        "infinite": (row(answer="1e999"), "prompt and answer in line 1 of 'bad.jsonl', got an answer that is Infinity"),
        "deep": (row(rest=f', "x": {DEEP}'), 'JSON in line 1 of \'bad.jsonl\', got \'{"prompt": "1+1=", '),
        "twice": ('{"prompt": "1", "prompt": "2"}', 'JSON in line 1 of \'bad.jsonl\', got \'{"prompt": "1", "prompt'),
        "prompt surrogate": (
            row(r'"\ud800"'),
            "prompt and answer in line 1 of 'bad.jsonl', got a prompt with half a c",
        ),
        "answer surrogate": (
            row(answer=r'"\ud800"'),
            "prompt and answer in line 1 of 'bad.jsonl', got an answer with ",
        ),
        "source surrogate": (
            row(rest=r', "source": "\ud800"'),
            "prompt and answer in line 1 of 'bad.jsonl', got a sou",
        ),
        "message surrogate": (
            message(content=r'"\ud800"'),
            "prompt and answer in line 1 of 'bad.jsonl', got a message",
        ),
        "surrogate bytes": (b'{"prompt": "\xed\xa0\x80"}', "text in UTF-8, got 'bad.jsonl': "),
        "utf-16": (row().encode("utf-16"), "text in UTF-8, got 'bad.jsonl': "),
        "gzip": (b"\x1f\x8b\x08\x00", "text in UTF-8, got 'bad.jsonl': "),
        "blank": ("\n \t\r\n", "at least one example in 'bad.jsonl', got none"),
        "indented": ('{\n "prompt": "1"\n}', "JSON in line 1 of 'bad.jsonl', got '{': Expecting property name"),
        "cut short": (
            row() + '{"prompt": "1',
            "JSON in line 2 of 'bad.jsonl', got '{\"prompt\": \"1': Unterminated str",
        ),
        "line separator": ("\u2028\n", "JSON in line 1 of 'bad.jsonl', got '\\u2028': Expecting value"),
        "role": (
            message('"bot"'),
            "prompt and answer in line 1 of 'bad.jsonl', got a message whose role is 'bot', not",
        ),
        "role list": (
            message('["user"]'),
            "prompt and answer in line 1 of 'bad.jsonl', got a message whose role is ['u",
        ),
        "content null": (
            message(content="null"),
            "prompt and answer in line 1 of 'bad.jsonl', got a message whose cont",
        ),
        "image": (
            message(content='[{"type": "image"}]'),
            "prompt and answer in line 1 of 'bad.jsonl', got a message wit",
        ),
        "no messages": (row("[]"), "prompt and answer in line 1 of 'bad.jsonl', got a prompt that is an empty list"),
        "no answers": (
            row(answer="[]"),
            "prompt and answer in line 1 of 'bad.jsonl', got an answer that is an empty li",
        ),
        "answer object": (
            row(answer='{"a": 1}'),
            "prompt and answer in line 1 of 'bad.jsonl', got an answer that is an ",
        ),
        "extra text": (
            verls('"reward_model": {"ground_truth": "1"}, "extra_info": "hello"'),
            "prompt and answer in line 1 of 'bad.jsonl', got an extra_info that is str, not an object",
        ),
        "extra list": (
            verls('"reward_model": {"ground_truth": "1"}, "extra_info": [1]'),
            "prompt and answer in line 1 of 'bad.jsonl', got an extra_info that is list, not an object",
        ),
        "no ground truth": (
            verls('"reward_model": {"style": "rule"}'),
            "prompt and answer in line 1 of 'bad.jsonl', got no field 'ground_truth'",
        ),
        "loop": (loop, "a file, got 'bad.jsonl', which is not one"),
        "pipe": (pipe, "a file, got 'bad.jsonl', which is not one"),
    },
)
OTHER_ROWS = Group(
    "verify-data bad.jsonl",
    "bad.jsonl",
    "data",
    {
        "code": (row(rest=', "verifier": "os:system"'), ": expected a row's verifier to be one of arithmetic, "),
        "number": (row(rest=', "verifier": 3'), ": expected a row's verifier to be one of arithmetic, "),
        "long source": (
            row(rest=f', "source": "{"x" * 10_000}"'),
            ".verifier: expected a source that begins with one ",
        ),
    },
)
PARQUET = Group(
    f"{TRAIN} --data.train bad.parquet",
    "bad.parquet",
    "data: expected a parquet file, got 'bad.parquet': ",
    {"empty": (b"", ""), "magic": (b"PAR1PAR1", ""), "footer": (b"PAR1" + b"\xff" * 20 + b"\xff\xff\xff\x7fPAR1", "")},
)
GROUPS = [YAML, ROWS, OTHER_ROWS, PARQUET]
