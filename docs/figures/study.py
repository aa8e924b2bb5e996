"""Draws docs/assets/study-*.svg and writes studies/*/tables.md from the committed results of both studies.

`python docs/figures/study.py`, from the project's root.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from clipo_train.report.charts import drawing
from clipo_train.study.analysis import Analysis, Comparison, analyse
from clipo_train.study.config import START, StudyConfig, load_study
from clipo_train.study.page import facts, forest, measure_name, number, p_text
from clipo_train.study.runner import Result, read_results

ROOT = Path(__file__).parents[2]
WRONG, ACCURACY, LONG = "eval/heldout/process_wrong_among_right", "eval/heldout/accuracy", "eval/long/accuracy"
MECHANISM = (
    "contrastive/process_gap",
    "contrastive/process_auc",
    "advantage/process_gap",
    "contrastive/clamp_fraction",
    "contrastive/noise_share",
    "advantage/nonzero",
    "advantage/negative_among_right",
)


def main() -> None:
    """Everything that the page shows."""
    study, _, analysis = load("clipo")
    for name, svg in (
        ("process", forest(analysis, WRONG)),
        ("accuracy", forest(analysis, ACCURACY)),
        ("mechanism", scatter(study, analysis)),
    ):
        (ROOT / "docs" / "assets" / f"study-{name}.svg").write_text(svg)
    for name in ("clipo", "consensus"):
        (ROOT / "studies" / name / "tables.md").write_text(tables(name))


def tables(name: str) -> str:
    """A study's tables, as sections that the page includes."""
    study, results, analysis = load(name)
    parts = {"facts": told(facts(study, results)), "primary": primary(study, analysis)}
    if name == "clipo":
        parts |= {
            "expected": expected(study, analysis),
            "mechanism": mechanism(study, analysis),
            "power": power(study, analysis),
            "strong": strong(study, results),
        }
    return "".join(f"--8<-- [start:{part}]\n{text}\n--8<-- [end:{part}]\n\n" for part, text in parts.items())


@cache
def load(name: str) -> tuple[StudyConfig, list[Result], Analysis]:
    """A study of ours, its results, and what they say."""
    study = load_study(ROOT / "studies" / name / "study.yaml", {"output": ROOT / "studies" / name})
    results = read_results(study.output)
    return study, results, analyse(study, results)


def told(given: dict[str, Any]) -> str:
    """How much was run, and where."""
    machine = given["machine"]
    return (
        f"{given['arms']} arms with {given['seeds']} seeds: {given['runs']} runs in {given['hours']:.1f} CPU hours, "
        f"on {machine['cpu']} ({machine['cores']} cores), Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}."
    )


def primary(study: StudyConfig, analysis: Analysis) -> str:
    """The primary measures of every arm, and their differences from the first arm it is compared with."""
    return table(
        ["arm", "held out: accuracy", "held out: process-wrong among right", "long: accuracy", "less", "process-wrong"],
        (
            [
                f"`{arm}`",
                *(f"{analysis.means[arm][name].mean:.3f}" for name in (ACCURACY, WRONG, LONG)),
                f"`{rows[0].against}`" if (rows := against(analysis, arm, WRONG)) else "",
                marked(rows[0]) if rows else "",
            ]
            for arm in (START, *study.arms)
        ),
    )


def expected(study: StudyConfig, analysis: Analysis) -> str:
    """All comparisons of the arms whose effect was foretold."""
    return table(
        ["arm", "less", "held out: process-wrong among right", "held out: accuracy", "gap", "gets a signal"],
        (
            [
                f"`{row.arm}`",
                f"`{row.against}`",
                marked(row),
                *(
                    marked(found) if (found := find(analysis, row, name)) else "–"
                    for name in (ACCURACY, "contrastive/process_gap", "advantage/nonzero")
                ),
            ]
            for arm, settings in study.arms.items()
            if settings.expect
            for row in against(analysis, arm, WRONG)
        ),
    )


def mechanism(study: StudyConfig, analysis: Analysis) -> str:
    """Means over seeds and steps of what the reward did."""
    return table(
        [
            "arm",
            "gap of rewards",
            "AUC",
            "gap of advantages",
            "at the floor",
            "noise",
            "gets a signal",
            "right, yet negative",
        ],
        (
            [f"`{arm}`", *(cell(analysis, arm, name) for name in MECHANISM)]
            for arm in study.arms
            if "contrastive/process_gap" in analysis.means[arm]
        ),
    )


def power(study: StudyConfig, analysis: Analysis) -> str:
    """What 20 seeds can find of the paper's arm, and what the oracle does."""
    rows = [row for row in analysis.comparisons if (row.arm, row.against) in (("clipo", "grpo"), ("oracle", "grpo"))]
    return table(
        ["measure", "pair", "difference", "p", "p, corrected", "detectable"],
        (
            [
                measure_name(row.measure),
                f"`{row.arm}` − `{row.against}`",
                number(row.difference, signed=True),
                p_text(row.p),
                p_text(row.p_holm),
                f"{row.detectable:.4f}",
            ]
            for name in study.primary
            for row in rows
            if row.measure == name
        ),
    )


def strong(study: StudyConfig, results: Sequence[Result]) -> str:
    """Process-wrong answers of the seeds whose first policy is right in more than two of five answers."""
    seeds = {row.seed for row in results if row.arm == START and row.measures[ACCURACY] > 0.4}
    own = replace(study, primary=(WRONG,), secondary=())
    analysis = analyse(own, [row for row in results if row.seed in seeds])
    return table(
        ["arm", f"process-wrong among right, {len(seeds)} seeds", "less", "difference"],
        (
            [f"`{row.arm}`", number(analysis.means[row.arm][WRONG]), f"`{row.against}`", marked(row)]
            for row in analysis.comparisons
            if row.against == "grpo"
        ),
    )


def scatter(study: StudyConfig, analysis: Analysis) -> str:
    """Each arm's mean gap, and what it changed about process-wrong answers."""
    points = [
        (arm, analysis.means[arm]["contrastive/process_gap"].mean, rows[0].difference.mean)
        for arm in study.arms
        if "contrastive/process_gap" in analysis.means[arm] and (rows := against(analysis, arm, WRONG))
    ]

    def paint(axes: Any) -> None:
        for arm, gap, change in points:
            color = "#d62728" if arm.startswith("oracle") else "#1f77b4" if study.arms[arm].expect else "#7f7f7f"
            axes.plot([gap], [change], marker="o", color=color)
            if gap > 0.02 or abs(change) > 0.03:
                axes.annotate(arm, (gap, change), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.axhline(0, color="#808080", linewidth=0.8)
        axes.set_xlabel("mean gap of the reward: right less wrong process, among right answers")
        axes.set_ylabel("change in process-wrong among right")
        axes.grid(alpha=0.25)

    described = "; ".join(f"{arm}: gap {gap:.3f}, change {change:+.3f}" for arm, gap, change in points)
    title = "Mean gap of each arm's reward, and what it changed about process-wrong answers"
    return drawing(f"{title}. {described}.", (7.5, 4.2), paint)


def against(analysis: Analysis, arm: str, name: str) -> list[Comparison]:
    """The arm's comparisons in a measure."""
    return [row for row in analysis.comparisons if row.arm == arm and row.measure == name]


def find(analysis: Analysis, like: Comparison, name: str) -> Comparison | None:
    """The same pair in another measure."""
    return next((row for row in against(analysis, like.arm, name) if row.against == like.against), None)


def marked(row: Comparison) -> str:
    """A difference, bold where it was found."""
    shown = number(row.difference, signed=True).replace(" ", "\u00a0")
    return f"**{shown}**" if row.found else shown


def cell(analysis: Analysis, arm: str, name: str) -> str:
    """An arm's mean."""
    found = analysis.means[arm].get(name)
    return "–" if found is None else f"{found.mean:+.4f}" if name.endswith("gap") else f"{found.mean:.3f}"


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
