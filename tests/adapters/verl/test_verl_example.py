"""The example for verl, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipo_train.adapters.verl import selfcheck
from clipo_train.adapters.verl.advantages import ESTIMATORS
from clipo_train.adapters.verl.losses import LOSSES

EXAMPLE = Path(__file__).parents[3] / "examples" / "06_verl.py"


def test_the_example_tells_right_ones_apart_and_agrees_with_verl(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(EXAMPLE)]
    environment = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "auto", "COLUMNS": "100"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    registered = [row[1] for row in rows if len(row) == 2]
    assert [selfcheck.TESTED, *ESTIMATORS, *LOSSES] == registered[: 1 + len(ESTIMATORS) + len(LOSSES)]

    rollouts = {row[0]: [float(number) for number in row[2:]] for row in rows if len(row) == 6}
    assert len(rollouts) == 8
    for score, contrastive, advantage, without in (rollouts[f"b_{place}_0"] for place in range(4)):
        assert (score, contrastive, advantage, without) == (1, 0, 0, 0)
    right = [rollouts[f"a_{place}_0"] for place in range(3)]
    assert right[2][1] == min(contrastive for _, contrastive, _, _ in right) < 0
    assert right[2][2] < right[2][3] < right[0][2]
    total = [score + contrastive for score, contrastive, *_ in (*right, rollouts["a_3_0"])]
    mean = sum(total) / 4
    deviation = (sum((value - mean) ** 2 for value in total) / 3) ** 0.5
    advantages = [advantage for _, _, advantage, _ in (*right, rollouts["a_3_0"])]
    assert advantages == pytest.approx([(value - mean) / deviation for value in total], abs=3e-3)

    mine, theirs = done.stdout.split("clipo_clipped ")[-1].split(", verl's vanilla ")
    assert float(mine) == float(theirs) != 0
