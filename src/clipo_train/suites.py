"""What the paper evaluates on: its two tracks, as configurations of an evaluation.

Source: arXiv 2603.10101 and the scripts released with it. The files are those of its release, by their names there.
"""

from pathlib import Path
from typing import Any

from clipo_train.errors import ConfigError

SUITES: dict[str, dict[str, Any]] = {
    "track1": {
        "sets": (
            "gsm8k",
            "gsm_symbolic",
            "gsm_p1",
            "gsm_p2",
            "commonsense_qa",
            "mmlu_2k",
            "theoremqa",
            "truthfulqa",
        ),
        "temperature": 0.0,
        "max_new_tokens": 2048,
    },
    "track2": {
        "sets": ("math", "math_perturb_simple", "math_perturb_hard", "amc", "aime", "aime2025"),
        "samples": 16,
        "temperature": 0.6,
        "top_p": 0.95,
        "max_new_tokens": 4096,
    },
}
"""Track I: mathematics in words and general tasks, greedy. Track II: competition mathematics, 16 samples a prompt."""


def suite(name: str, folder: Path) -> dict[str, Any]:
    """The fields of a configuration that a suite determines.

    Args:
        name: One of `SUITES`.
        folder: Where its parquet files are.

    Raises:
        ConfigError: An unknown suite.
    """
    if name not in SUITES:
        raise ConfigError(f"suite: expected one of {', '.join(SUITES)}, got {name!r}")
    chosen = SUITES[name]
    sets = {stem: str(folder / f"{stem}.parquet") for stem in chosen["sets"]}
    evaluation = {"limit": None, "samples": 1, "top_p": 1.0, "verifier": "auto"} | chosen | {"sets": sets}
    return {
        # The prompts say already how the answer should be given.
        "data": {"prompt_prefix": "", "prompt_suffix": "", "options": {}, "columns": {}},
        "evaluation": evaluation,
    }
