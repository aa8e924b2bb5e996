"""What pages say in tables and pictures is what the code does."""

import inspect
import re
import runpy
from pathlib import Path

import pytest

import clipo_ops
from clipo_train.config import ClipoConfig, LossConfig
from clipo_train.config.files import PRESETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def rows(page: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]


def test_the_recipes_have_their_defaults_and_presets() -> None:
    recipes = [row for row in rows("recipes.md") if len(row) == 5 and "#clipo_ops." in row[1]]
    assert len(recipes) == 10
    for _, function, defaults, fields, _ in recipes:
        name = re.search(r"#clipo_ops\.(\w+)", function)
        assert name
        parameters = inspect.signature(getattr(clipo_ops, name[1])).parameters
        given = re.findall(r"`(\w+)` (-?[\d.]+)", defaults)
        assert len(given) >= 2
        assert {n: parameters[n].default for n, _ in given} == {n: float(value) for n, value in given}
        method, value = re.findall(r"`(?:(\w+): )?([\w+-]+)`", fields)[0]
        assert value in (LossConfig.__annotations__[method].__args__ if method else PRESETS)


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("objective", ClipoConfig),
        ("scope", ClipoConfig),
        ("offset", ClipoConfig),
        ("advantages", LossConfig),
        ("surrogate", LossConfig),
        ("aggregation", LossConfig),
        ("kl_in", LossConfig),
        ("kl_estimator", LossConfig),
        ("head", ClipoConfig),
    ],
)
def test_every_option_of_a_choice_has_its_line(field: str, config: type) -> None:
    text = " ".join(" ".join(row[:2]) for row in rows("choosing.md"))
    options = config.__annotations__[field].__args__
    assert [option for option in options if f"`{option}`" not in text] == []


def test_fields_that_pages_name_exist() -> None:
    named = re.findall(r"`(clipo|loss)\.(\w+)", "".join(path.read_text() for path in DOCS.glob("*.md")))
    configs = {"clipo": ClipoConfig, "loss": LossConfig}
    assert len(named) > 30
    assert {f"{section}.{field}" for section, field in named if field not in configs[section].__annotations__} == set()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_of_what_is_read_without_the_site_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("https://")]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_pictures_of_the_method_are_what_the_script_draws(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "figures" / "method.py"))["main"](tmp_path)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert len(drawn) == 5
    for path in drawn:
        texts, committed = (_texts(file) for file in (path, DOCS / "assets" / path.name))
        assert texts == committed
        assert len(texts) > 8


def _texts(path: Path) -> list[str]:
    """The words and numbers of a picture."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
