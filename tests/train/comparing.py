"""Whether two runs came to the same, to the bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def read(run: Path) -> dict[str, Any]:
    """Everything that a run has written, but for times."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    latest = max((run / "checkpoints").iterdir())
    return {
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
        "final": load_file(run / "final" / "model.safetensors"),
        **{path.name: torch.load(path, weights_only=True) for path in latest.glob("*.pt")},
        "metrics": [{key: value for key, value in row.items() if not key.startswith("time/")} for row in metrics],
        "completions": (run / "completions.jsonl").read_text(),
    }


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two trees differ, in a bit."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return [place for key in one for place in differing(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.equal(other) else [path]
    return [] if one == other else [path]
