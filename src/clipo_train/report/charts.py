"""What is drawn of a run, and how: figures of panels, each panel an inline SVG."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from clipo_train.errors import printable


class Panel(NamedTuple):
    """One pair of axes: its y label, and metric -> name in the legend.

    Attributes:
        label: Of the y axis.
        series: What is drawn.
        total: The metric that the series add up to, if they are to be stacked.
    """

    label: str
    series: dict[str, str]
    total: str | None = None


class Figure(NamedTuple):
    """Panels side by side, with what they show and what is healthy."""

    title: str
    caption: str
    panels: tuple[Panel, ...]


class Line(NamedTuple):
    """A line of a panel, with a band around it if `low` and `high` are given."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    color: str | None = None
    dashes: tuple[float, ...] = ()


def figures(sets: Sequence[str]) -> tuple[Figure, ...]:
    """What is worth a look, given the names of the evaluation sets."""
    evaluated = {f"eval/{name}/accuracy": name for name in sets}
    process = {f"eval/{name}/process_accuracy": name for name in sets}
    return (
        Figure(
            "Accuracy",
            "Share of completions whose answer, and whose every step, is right. Should rise on all sets.",
            (
                Panel("outcome accuracy", {"rollout/accuracy": "training"} | evaluated),
                Panel("process accuracy", {"rollout/process_accuracy": "training"} | process),
            ),
        ),
        Figure(
            "Reward",
            "What the policy is trained on: outcome plus contrastive. The contrastive part lies between its floor "
            "and 0; at the floor it tells rollouts apart no more.",
            (
                Panel("reward", {"reward/outcome": "outcome", "reward/total": "total"}),
                Panel("contrastive reward", {"reward/contrastive": "contrastive"}),
            ),
        ),
        *_HEALTH,
    )


_HEALTH = (
    Figure(
        "Exploration and step size",
        "Entropy per token should fall slowly, not collapse to 0; clip fraction and KL should stay small.",
        (
            Panel("entropy (nats per token)", {"policy/entropy": "entropy"}),
            Panel("share; nats per token", {"policy/clip_fraction": "clip fraction", "policy/approx_kl": "KL"}),
        ),
    ),
    Figure(
        "Similarity within groups",
        "Mean cosine between correct rollouts, and between correct and wrong ones. The first should lie above the "
        "second: that gap is what the head has learnt.",
        (
            Panel(
                "cosine",
                {
                    "contrastive/similarity_positive": "correct with correct",
                    "contrastive/similarity_negative": "correct with wrong",
                },
            ),
            Panel("contrastive loss", {"contrastive/loss": "loss"}),
        ),
    ),
    Figure(
        "Who gets a signal",
        "Share of rollouts that are anchors, and so get a contrastive reward; of anchors clamped at the floor, who "
        "all get the same one; and of degenerate groups, of one constant reward, which teach nothing.",
        (
            Panel(
                "share",
                {
                    "contrastive/anchor_fraction": "anchors",
                    "contrastive/clamp_fraction": "at the floor",
                    "groups/degenerate": "degenerate groups",
                },
            ),
        ),
    ),
    Figure(
        "Where a step's time goes",
        "Seconds in each part of a step. The contrastive part (pooling, head, loss, reward) should be a few percent.",
        (
            Panel(
                "seconds",
                {f"time/{part}": part for part in ("rollout", "verify", "score", "contrastive", "update")},
                total="time/step",
            ),
        ),
    ),
)


def svg(description: str, label: str, lines: Sequence[Line], *, stacked: bool = False, legend: bool = True) -> Markup:
    """Draws lines over steps.

    Args:
        description: What a reader hears who does not see the picture.
        label: Of the y axis.
        lines: At least one.
        stacked: Areas on top of each other instead.
        legend: Name the lines, if there are several.
    """

    def paint(axes: Any) -> None:
        (_stack if stacked else _plot)(axes, lines)
        axes.set_xlabel("step")
        axes.set_ylabel(printable(label))
        axes.grid(alpha=0.25)
        if legend and len(lines) > 1:
            axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(lines), 3))

    return drawing(description, (4.8, 3.2), paint)


def drawing(description: str, size: tuple[float, float], paint: Callable[[Any], None]) -> Markup:
    """An inline SVG that reads on white and on black.

    Args:
        description: What a reader hears who does not see the picture.
        size: Width and height in inches.
        paint: Draws on the axes that it is given.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    grey = "#808080"
    style: Any = {
        "svg.hashsalt": printable(description),
        "svg.fonttype": "none",
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "text.color"), grey),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # names are no formulas
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has it
        canvas = Canvas(figsize=size, layout="constrained")
        paint(canvas.subplots())
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    told = Markup('<svg role="img" aria-label="{}"').format(printable(description))
    return Markup(text.replace("<svg", told, 1))  # noqa: S704


def _legend(name: str) -> str:
    """A name that matplotlib shows: it leaves out those that begin with an underscore."""
    return ("\N{ZERO WIDTH SPACE}" if name.startswith("_") else "") + printable(name)


def _plot(axes: Any, lines: Sequence[Line]) -> None:
    for line in lines:
        (drawn,) = axes.plot(
            line.steps,
            line.values,
            label=_legend(line.name),
            color=line.color,
            linestyle=(0, line.dashes),
            marker="o" if len(line.steps) < 12 else None,
            markersize=3,
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(line.steps, line.low, line.high, color=drawn.get_color(), alpha=0.2, linewidth=0)


def _stack(axes: Any, lines: Sequence[Line]) -> None:
    steps = sorted(set.intersection(*(set(line.steps) for line in lines)))
    heights = [[dict(zip(line.steps, line.values, strict=True))[step] for step in steps] for line in lines]
    axes.stackplot(steps, heights, labels=[_legend(line.name) for line in lines], alpha=0.8)
