"""Draws docs/assets/demo.svg from the demo's metrics: `python docs/figures/demo.py [runs/demo]`."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
grey = "#808080"  # readable on white and on black
mpl.rcParams.update({f"{part}.color": grey for part in ("text", "xtick", "ytick")})
mpl.rcParams.update({"axes.edgecolor": grey, "axes.labelcolor": grey, "svg.fonttype": "none", "svg.hashsalt": "demo"})
mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

figure = Figure(figsize=(5.6, 3), layout="constrained")
lines = {
    "right answers, held out": "eval/heldout/accuracy",
    "right in every step, held out": "eval/heldout/process_accuracy",
    "right answers, longer problems": "eval/long/accuracy",
}
axes = figure.subplots()
for name, key in lines.items():
    points = [(row["step"], row[key]) for row in rows if key in row]
    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
axes.set(xlabel="step", ylabel="share of sampled responses", ylim=(0, 1))
axes.grid(alpha=0.25)
axes.legend(frameon=False, loc="lower right")
target = Path(__file__).parents[1] / "assets" / "demo.svg"
figure.savefig(target, transparent=True, metadata={"Date": None})
