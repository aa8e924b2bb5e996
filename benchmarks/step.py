"""What CLIPO costs in a step of the demo: `python benchmarks/step.py [--steps 40]`.

Trains the demo and reads the trainer's own stop-watches. The contrastive part is pooling, head, loss, reward and
advantages; it should be at most 5 % of a step.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from clipo_train.config.files import load_config
from clipo_train.report import load_metrics
from clipo_train.trainer import Trainer

LIMIT = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    demo = Path(__file__).parents[1] / "examples" / "configs" / "demo.yaml"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--run_dir", f"{folder}/run", "--steps", str(steps), "--evaluation.every", "0"]
        Trainer(load_config(demo, arguments)).train()
        rows = load_metrics(Path(folder) / "run")[2:]  # the first step warms up
    parts = [name for name in rows[0] if name.startswith("time/") and name != "time/step"]
    step = statistics.median(row["time/step"] for row in rows)
    print(f"median of {len(rows)} steps: {1000 * step:.1f} ms")
    for name in parts:
        seconds = statistics.median(row[name] for row in rows)
        print(f"  {name:20} {1000 * seconds:7.2f} ms  {100 * seconds / step:5.1f} %")
    share = statistics.median(row["time/contrastive"] / row["time/step"] for row in rows)
    met = "met" if share <= LIMIT else "MISSED"
    print(f"contrastive share {100 * share:.1f} %, wanted at most {100 * LIMIT:.0f} %: {met}")


if __name__ == "__main__":
    main()
