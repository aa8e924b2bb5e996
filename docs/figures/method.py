"""Draws docs/assets/method-*.svg, one group of six rollouts on its way through CLIPO: `python docs/figures/method.py`.

All numbers are computed by `clipo_ops`, for made-up hidden states and a head of two dimensions.
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from clipo_ops import contrastive_loss, contrastive_reward, grpo_advantages, mean_pool, supcon_out

BLUE, ORANGE, GREY = "#2a78b8", "#d9822b", "#808080"  # readable on white and on black
SUCCESS = torch.tensor([True, True, True, True, False, False])
GROUPS = torch.zeros(6, dtype=torch.long)
COLORS = [BLUE if right else ORANGE for right in SUCCESS]


class Step(NamedTuple):
    """What one group goes through with a head as it is."""

    embeddings: Tensor
    cosines: Tensor
    loss: Tensor
    reward: Tensor
    advantages: Tensor


def group() -> tuple[Tensor, Tensor]:
    """Hidden states of six responses, right ones alike and wrong ones alike, and which of them are real."""
    generator = torch.Generator().manual_seed(3)
    ways = torch.randn(3, 8, generator=generator)[torch.tensor([0, 0, 0, 1, 2, 2])]
    common = torch.randn(8, generator=generator)
    hidden = (common + ways).unsqueeze(1) + 0.7 * torch.randn(6, 6, 8, generator=generator)
    return hidden, torch.arange(6) < torch.tensor([4, 5, 6, 5, 6, 4]).unsqueeze(1)


def head_after(steps: int, pooled: Tensor) -> Tensor:
    """The head's matrix after so many steps on this one group."""
    generator = torch.Generator().manual_seed(128)  # one that shows a reward at the floor
    weight = (0.35 * torch.randn(2, 8, generator=generator)).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        contrastive_loss(pooled @ weight.T, SUCCESS, GROUPS, objective=supcon_out).backward()
        optimizer.step()
    return weight.detach()


def through(pooled: Tensor, weight: Tensor) -> Step:
    """The steps of the method, by the paper's constants and the expectation of its draw."""
    embeddings = pooled @ weight.T
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    loss = contrastive_loss(embeddings, SUCCESS, GROUPS, objective=supcon_out, reduction="none")
    reward = contrastive_reward(loss)
    return Step(unit, unit @ unit.T, loss, reward, grpo_advantages(SUCCESS.float() + reward, GROUPS))


def draw_pooling(hidden: Tensor, mask: Tensor, pooled: Tensor, figure: Figure) -> None:
    """One response's states and their mean; then the means of all six."""
    left, middle, right = figure.subplots(1, 3, width_ratios=[6, 1.3, 6.6])
    states = torch.where(mask[1].unsqueeze(1), hidden[1], torch.nan)
    for axes, values in ((left, states.T), (middle, pooled[1:2].T), (right, pooled.T)):
        axes.pcolormesh(values.numpy().round(2), cmap="RdBu", vmin=-4, vmax=4, edgecolors=GREY, linewidth=0.3)
        axes.set(xticks=[], yticks=[])
    left.set(title="states of rollout 2", ylabel="hidden size", xlabel="tokens; the last is padding")
    middle.set(title="mean")
    right.set(title="means of all six", xlabel="rollouts")
    _numbered(right, offset=0.5)


def draw_embeddings(before: Step, after: Step, figure: Figure) -> None:
    """Directions on the unit circle, before and after the head has learned."""
    for axes, step, title in zip(
        figure.subplots(1, 2), (before, after), ("the head as drawn", "after ten steps"), strict=True
    ):
        circle = torch.linspace(0, math.pi, 60)
        places = step.embeddings[:, 0].argsort().argsort()  # from left to right
        axes.plot(circle.cos(), circle.sin(), color=GREY, linewidth=0.6)
        for i, (x, y) in enumerate(step.embeddings.numpy().round(3)):
            axes.plot([0, x], [0, y], color=COLORS[i], linewidth=0.8)
            axes.plot(x, y, color=COLORS[i], marker="o" if SUCCESS[i] else "X", markersize=7)
            out = 1.15 + 0.13 * float(places[i] % 2)
            axes.text(out * x, out * y, str(i + 1), color=COLORS[i], ha="center", va="center")
        axes.set(title=title, aspect="equal", xlim=(-1.35, 1.35), ylim=(-0.05, 1.4), xticks=[], yticks=[])
        axes.axis("off")


def draw_similarities(step: Step, figure: Figure) -> None:
    """Cosines of a row's anchor with all others; its own takes part in nothing."""
    axes = figure.subplots()
    for i in range(4):
        for j in range(6):
            own = i == j
            axes.text(j, i, "" if own else f"{step.cosines[i, j]:.2f}", color=COLORS[j], ha="center", va="center")
    axes.set(xlim=(-0.5, 5.5), ylim=(3.5, -0.5), yticks=range(4), yticklabels=["1", "2", "3", "4"], ylabel="anchor")
    axes.set(title="cosine with: right (blue), wrong (orange)")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _numbered(axes)


def draw_reward(step: Step, figure: Figure) -> None:
    """The losses of the right rollouts, and the rewards that they become."""
    left, right = figure.subplots(1, 2)
    _bars(left, step.loss[:4], [BLUE] * 4)
    left.axhline(math.log(3), color=GREY, linestyle="--", linewidth=1)
    left.text(3.45, math.log(3) + 0.05, "log 3", va="bottom")
    left.set(title="loss", xlabel="right rollouts", ylim=(0, 3.9), xlim=(-0.6, 4.3))
    _bars(right, step.reward[:4], [BLUE] * 4)
    right.axhline(-0.5, color=GREY, linestyle="--", linewidth=1)
    right.text(-0.45, -0.51, "floor", ha="left", va="top")
    right.set(title="reward = max(−.2 loss, −.5)", xlabel="right rollouts", ylim=(-0.62, 0))
    for axes in (left, right):
        _numbered(axes, count=4)


def draw_advantages(before: Step, after: Step, figure: Figure) -> None:
    """Advantages by the outcome alone, and with the contrastive reward."""
    plain = grpo_advantages(SUCCESS.float(), GROUPS)
    names = ("outcome alone", "with CLIPO", "ten steps later")
    for axes, name, values in zip(
        figure.subplots(1, 3, sharey=True), names, (plain, before.advantages, after.advantages), strict=True
    ):
        _bars(axes, values, COLORS, digits=1)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(title=name, xlabel="rollouts", ylim=(-1.6, 1.2))
        _numbered(axes)


def _bars(axes: Axes, values: Tensor, colors: list[str], *, digits: int = 2) -> None:
    heights = values.numpy().round(3)
    bars = axes.bar(range(len(heights)), heights, color=colors, width=0.7)
    axes.bar_label(bars, labels=[f"{value:.{digits}f}" for value in heights], padding=2, fontsize=7)


def _numbered(axes: Axes, *, offset: float = 0, count: int = 6) -> None:
    axes.set_xticks([place + offset for place in range(count)], [str(place + 1) for place in range(count)])


def main(target: Path) -> None:
    """Writes the figures."""
    mpl.rcParams.update({f"{part}.color": GREY for part in ("text", "xtick", "ytick")})
    mpl.rcParams.update({"axes.edgecolor": GREY, "axes.labelcolor": GREY, "axes.titlesize": 10, "font.size": 9})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "method"})
    hidden, mask = group()
    pooled = mean_pool(hidden, mask)
    before, after = (through(pooled, head_after(steps, pooled)) for steps in (0, 10))
    figures = {
        "pool": (2.2, lambda figure: draw_pooling(hidden, mask, pooled, figure)),
        "head": (1.7, lambda figure: draw_embeddings(before, after, figure)),
        "similarity": (1.9, lambda figure: draw_similarities(before, figure)),
        "reward": (2.4, lambda figure: draw_reward(before, figure)),
        "advantages": (2.4, lambda figure: draw_advantages(before, after, figure)),
    }
    for name, (height, draw) in figures.items():
        figure = Figure(figsize=(5.4, height), layout="constrained")
        draw(figure)
        figure.savefig(target / f"method-{name}.svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "assets")
