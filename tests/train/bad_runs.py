"""Run folders, checkpoints, verifiers and studies that are not what they should be; laid out as in `bad_files`."""

import json
from pathlib import Path
from shutil import rmtree

import yaml

from clipo_train.manifest import write_manifest

from .bad_files import DEEP, DIGITS, RESUME, TRAIN, Content, Group, empty, flip, folder, loop, pipe, remove

CHECKPOINT = "done/checkpoints/step-00000002"
READABLE = f"resume: expected a readable checkpoint, got '{CHECKPOINT}'; remove it to go on from the one before ("


def damaged(file: str, *cases: Content) -> Group:
    path = f"{CHECKPOINT}/{file}"
    return Group(RESUME, path, READABLE, {getattr(case, "__name__", repr(case)[:20]): (case, "") for case in cases})


def file_in_place(path: Path) -> None:
    rmtree(path)
    path.write_text("mine")


def link_to_itself(path: Path) -> None:
    rmtree(path)
    loop(path)


def signed_again(**facts: object) -> Content:
    """Other facts, under a manifest that fits them."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))
        write_manifest(path.parent)

    return change


CHECKPOINTS = [
    *(damaged(file, remove, empty, flip, loop) for file in ("clipo.json", "config.yaml", "manifest.json")),
    *(damaged(f"{name}.pt", remove, empty, flip, b"x") for name in ("random", "head", "optimizer")),
    damaged("policy/model.safetensors", remove, flip),
    damaged("extra.txt", "mine"),
    Group(
        RESUME,
        f"{CHECKPOINT}/clipo.json",
        READABLE,
        {
            "prompts": (signed_again(prompts="many"), "ValidationError: 1 validation error for Position prompts "),
            "step": (signed_again(step=None), "TypeError: int() argument must be "),
            "model": (signed_again(fingerprints=3), "TypeError: argument of type 'int' is not iterable"),
        },
    ),
]
FOLDERS = [
    Group(
        f"{TRAIN} --run_dir odd --resume",
        "odd",
        "",
        {
            "file": ("mine", "run_dir: expected a folder that can be written, got 'odd': see "),
            "pipe": (pipe, "run_dir: expected a folder that can be written, got 'odd': see "),
            "loop": (loop, "odd: expected to be read and written, got "),
            "dangling": (lambda path: path.symlink_to("nowhere"), "odd: expected to be read and written, got "),
        },
    ),
    Group(
        RESUME, "done/config.yaml", "run_dir: expected the folder of a run or a new one, got 'done'", {"": (remove, "")}
    ),
    Group(
        RESUME,
        "done/checkpoints",
        "run_dir: expected the folder of a run to go on with or a new one, got 'done', which has final but no c",
        {"gone": (rmtree, ""), "file": (file_in_place, ""), "loop": (link_to_itself, "")},
    ),
    Group(
        RESUME,
        "done/metrics.jsonl",
        "run_dir: expected a file or nothing, got 'done/metrics.jsonl'",
        {"folder": (folder, ""), "pipe": (pipe, "")},
    ),
    Group(
        RESUME,
        "done/.lock",
        "run_dir: expected a folder that can be written, got 'done': ",
        {"folder": (folder, ""), "link": (lambda path: (path.unlink(), path.symlink_to("../config.yaml")), "")},
    ),
]
NUMBERS = "run: expected a step and numbers in each line of 'done/metrics.jsonl', got "
REPORTS = [
    Group(
        "report done",
        "done/metrics.jsonl",
        "",
        {
            "empty": ("", "run: expected a folder with a metrics.jsonl of at least one line, got 'done'"),
            "list": ("[1]\n", "run: expected an object in line 1 of 'done/metrics.jsonl', got list"),
            "no step": ('{"a": 1}\n', NUMBERS),
            "text": ('{"step": 1, "a": "x"}\n', NUMBERS),
            "infinite": ('{"step": 1e999}\n', NUMBERS),
            "digits": (f'{{"step": {DIGITS}}}\n', NUMBERS),
            "set": ('{"step": 1, "eval/a": 1}\n', NUMBERS),
            "deep": (f'{{"step": 1, "a": {DEEP}\n', "run: expected a folder with a metrics.jsonl of at least one line"),
            "loop": (loop, "run: expected a folder with a metrics.jsonl of at least one line, got 'done'"),
        },
    ),
    Group(
        "report done",
        "done/completions.jsonl",
        "run: expected ",
        {
            "list": ("[1]\n", "an object in line 1 of 'done/completions.jsonl', got list"),
            "missing": ('{"step": 1}\n', "sample completions in 'done/completions.jsonl', got a line with prompt None"),
        },
    ),
    Group(
        "report done", "done/report.html", "output: expected a file in a folder that exists, got ", {"": (folder, "")}
    ),
]
MODULE = "data.verifier: expected module:function, got 'scorer:score': "
MODULES = Group(
    f"{TRAIN} --data.verifier scorer:score",
    "scorer.py",
    MODULE,
    {
        "syntax": ("def score(:", "invalid syntax"),
        "encoding": (b"'\xe9'\n", "(unicode error) 'utf-8' codec can't decode byte 0xe9"),
        "exit": ("import sys; sys.exit(0)", "SystemExit: 0"),
        "base": ("raise BaseException('x')", "x"),
        "long": ("raise RuntimeError('x\\n' * 10_000)", "x x x"),
        "silent": ("class E(Exception):\n  def __str__(self): raise ValueError\nraise E", "E"),
        "deep": ("def f(): f()\nf()", "maximum recursion depth exceeded"),
        "import": ("import no_such_module", "No module named 'no_such_module'"),
        "missing": ("", "module 'scorer' has no attribute 'score'"),
    },
)
RETURNS = "data.verifier: expected a Verdict, a bool or a reward in [0, 1], got "
FAILS = "data.verifier: expected a verdict, got "
VERDICTS = Group(
    "verify-data good.jsonl --verifier scorer:score",
    "scorer.py",
    "data.verifier: expected ",
    {
        name: (f"from clipo_train.types import Verdict\ndef score(example, completion):\n  {body}", message)
        for name, (body, message) in {
            "none": ("return None", "a Verdict, a bool or a reward in [0, 1], got None from 'scorer:score' on "),
            "nan": ("return float('nan')", "a Verdict, a bool or a reward in [0, 1], got nan"),
            "two": ("return 2", "a Verdict, a bool or a reward in [0, 1], got 2"),
            "digits": ("return 10 ** 5000", "a verdict, got ValueError: Exceeds the limit"),
            "array": ("import numpy; return numpy.zeros(3)", "a Verdict, a bool or a reward in [0, 1], got array("),
            "pair": ("return True, 1.0", "a Verdict, a bool or a reward in [0, 1], got (True, 1.0)"),
            "long": ("return 'x' * 10 ** 6", "a Verdict, a bool or a reward in [0, 1], got 'xxx"),
            "lock": (
                "import threading; return threading.Lock()",
                "a Verdict, a bool or a reward in [0, 1], got <unloc",
            ),
            "infinite": (
                "return Verdict(True, float('inf'))",
                "Verdict.reward to be a number of at most 1e+15, got inf",
            ),
            "overflow": ("return Verdict(True, 1e39)", "Verdict.reward to be a number of at most 1e+15, got 1e+39"),
            "flag": ("return Verdict('x', 1.0)", "Verdict.success to be a bool, got 'x'"),
            "answer": ("return Verdict(True, 1.0, answer=b'x')", "Verdict.answer to be text or None, got b'x'"),
            "exit": ("import sys; sys.exit(0)", "a verdict, got SystemExit: 0"),
            "interrupt": ("raise KeyboardInterrupt", "a verdict, got KeyboardInterrupt"),
            "recursion": (
                "return score(example, completion)",
                "a verdict, got RecursionError: maximum recursion depth",
            ),
            "control": (r"raise ValueError('\x1b[31m\ud800')", "a verdict, got ValueError: \\x1b[31m\\ud800"),
            "representation": (
                "return type('R', (), {'__repr__': lambda self: 1 / 0})()",
                "a verdict, got ZeroDivisionError: division by zero",
            ),
            "silent": (
                "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})()",
                "a verdict, got E",
            ),
        }.items()
    },
)
STUDY = {
    "title": "t",
    "output": "out",
    "base": {"model": {"path": "model"}, "evaluation": {"sets": {"heldout": "arithmetic:heldout"}}},
    "arms": {"a": {"what": "plain"}},
    "primary": ["rollout/accuracy"],
    "seeds": 1,
}


def study(**fields: object) -> str:
    return yaml.safe_dump(STUDY | fields, allow_unicode=False)


ARM = "arms: expected names of letters, digits and ' ._+=-', not 'start', got "
STUDIES = [
    Group(
        "study study.yaml",
        "study.yaml",
        "",
        {
            **{
                f"arm {name!r:.12}": (study(arms={name: {"what": "x"}}), ARM)
                for name in ("..", "", ".", "a/b", "start", "/a", "../x", "a\0", "\n", " a", "-", "~", "a" * 300)
            },
            "no arm": (study(arms={}), "arms: expected at least one, got none"),
            "empty arm": (
                study(arms={"a": None}),
                "arms.a: expected a dictionary or an instance of ArmConfig, got None",
            ),
            "reward": (study(arms={"a": {"what": "x", "reward": "x"}}), "arms.a.reward: expected one of none, head, "),
            "against": (
                study(arms={"a": {"what": "x", "against": ["a"]}}),
                "arms.a.against: expected other arms, got 'a'",
            ),
            "field": (
                study(arms={"a": {"what": "x", "fields": {"x": 1}}}),
                "arms.a.fields: x: expected a field of the c",
            ),
            "base": (
                study(base={"clipo": 3}),
                "base: clipo: expected a dictionary or an instance of ClipoConfig, got 3",
            ),
            "measure": (study(primary=["rollout/acuracy"]), "primary, secondary: expected names of metrics, got "),
            "set": (
                study(primary=["eval/nope/accuracy"]),
                "primary, secondary: expected sets of base.evaluation.sets, ",
            ),
            "seeds": (study(seeds=0), "seeds: expected greater than or equal to 1, got 0"),
            "output": (
                study(output="config.yaml/x"),
                "output: expected a folder that can be written, got 'config.yaml/x'",
            ),
            "output NUL": (
                study(output="a\0b"),
                "base: run_dir: expected names of at most 200 bytes and without NUL, got ",
            ),
        },
    )
]

GROUPS = [*CHECKPOINTS, *FOLDERS, *REPORTS, MODULES, VERDICTS, *STUDIES]
