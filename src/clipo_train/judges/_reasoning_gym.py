"""Tasks of reasoning-gym, by their own scorers."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from clipo_train.types import Example, Verdict


def reasoning_gym(example: Example, completion: str) -> Verdict:
    """Right is what the task's own scorer gives 1; the reward is its score. What it cannot read gets 0."""
    task, options, entry = (example.metadata[name] for name in ("task", "options", "entry"))
    score, said = _scorer(task, json.dumps(options)), _final_answer(completion)
    try:
        reward = float(score(said, entry))
    except Exception:  # a scorer meets whatever a policy writes, and not all of them are ready for it
        reward = 0.0
    return Verdict(reward == 1.0, reward, answer=said)


def _final_answer(completion: str) -> str:
    """What stands in the last <answer> tag; else the last number; else the last line."""
    tagged = re.findall(r"<answer>(.*?)</answer>", completion, flags=re.DOTALL)
    if tagged:
        return str(tagged[-1]).strip()
    numbers = re.findall(r"-?\d+(?:\.\d+)?", completion)
    return str(numbers[-1]) if numbers else (completion.strip().splitlines() or [""])[-1]


@functools.cache
def _scorer(task: str, options: str) -> Callable[[str, Any], float]:
    import reasoning_gym

    score: Callable[[str, Any], float] = reasoning_gym.create_dataset(task, **json.loads(options)).score_answer
    return score
