"""Configuration from YAML and the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.config import TrainConfig
from clipo_train.config.files import dump_config, load_config
from clipo_train.config.unknown import suggestion
from clipo_train.config.yaml_files import read_yaml

EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"
CONFIGS = sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("paper/*.yaml")])  # the others are Accelerate's


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    assert load_config(path).run_dir == Path("runs") / path.stem


def test_yaml_round_trips(tmp_path: Path) -> None:
    for path in CONFIGS:
        copy = tmp_path / path.name
        copy.write_text(dump_config(load_config(path)))
        assert load_config(copy) == load_config(path)


def test_the_command_line_overrides_single_fields(config_file: Callable[..., Path]) -> None:
    path = config_file(clipo={"dim": 16, "weight": 0.3})
    arguments = ["--clipo.dim", "32", "--resume", "--optimizer.betas=0.5,0.6", "--clipo.enabled", "false"]
    config = load_config(path, arguments)
    assert (config.clipo.dim, config.clipo.weight, config.clipo.enabled) == (32, 0.3, False)
    assert config.resume
    assert config.optimizer.betas == (0.5, 0.6)


def test_the_environment_is_not_read(config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "9")
    assert load_config(config_file()).seed == 0


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TrainConfig().steps = 3  # type: ignore[misc]


def test_sections_merge_at_every_level_and_other_mappings_replace(config_file: Callable[..., Path]) -> None:
    lora = {"rank": 4, "alpha": 64, "target_modules": ["q_proj"]}
    options, columns = {"size": 3, "seed": 1}, {"prompt": "question"}
    path = config_file(
        model={"path": "arithmetic", "lora": lora},
        data={"options": options, "columns": columns},
        evaluation={"sets": {"heldout": "arithmetic:heldout"}},
    )
    config = load_config(path, ["--model.lora.rank", "8", "--data.options", "size=5", "--evaluation.sets", "a=b.jsonl"])
    assert (config.model.lora.rank, config.model.lora.alpha) == (8, 64)  # type: ignore[union-attr]
    assert config.model.lora.target_modules == ("q_proj",)  # type: ignore[union-attr]
    assert config.data.options == {"size": 5}
    assert config.data.columns == columns
    assert config.evaluation.sets == {"a": "b.jsonl"}
    assert load_config(path, ["--model.lora", "null"]).model.lora is None
    assert load_config(config_file(model={"lora": None}), ["--model.lora.rank", "8"]).model.lora.alpha == 32  # type: ignore[union-attr]


@pytest.mark.parametrize("number", ["-5e-1", "-0.5", "-.5", "-5E-01", "-0.05e+1"])
def test_negative_numbers_are_values(number: str, config_file: Callable[..., Path]) -> None:
    assert load_config(config_file(), ["--clipo.floor", number, "--steps", "3"]).clipo.floor == -0.5


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("size=5", {"size": 5}),
        ("a=1,b=2.5e-3,c=-4", {"a": 1, "b": 0.0025, "c": -4}),
        ("a=true,b=False,c=null", {"a": True, "b": False, "c": None}),
        ("name=main,split=a,b", {"name": "main", "split": "a,b"}),
        ("sizes=[1,2],name=x", {"sizes": [1, 2], "name": "x"}),
        ('name="5"', {"name": "5"}),
        ("url=a=b", {"url": "a=b"}),
        ('{"size": "5", "n": 3}', {"size": "5", "n": 3}),
        ("{}", {}),
        ("a=", {"a": ""}),
    ],
)
def test_options_on_the_command_line_have_types(
    text: str, options: dict[str, object], config_file: Callable[..., Path]
) -> None:
    path = config_file(data={"options": {"other": 1}})
    assert load_config(path, ["--data.options", text]).data.options == options
    assert load_config(path, [f"--data.options={text}"]).data.options == options


@pytest.mark.parametrize("text", ["a: &b {dim: 3}\nclipo: {<<: *b, dim: 4}", "a: &b [1]\nc: [*b, *b]\nclipo: {dim: 4}"])
def test_anchors_and_merge_keys_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert read_yaml(tmp_path / "config.yaml")["clipo"] == {"dim": 4}


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("stepz", "; did you mean steps?"),
        ("rollouts", "; did you mean rollout?"),
        ("group_size", "; did you mean rollout.group_size?"),
        ("rollout.group-size", "; did you mean rollout.group_size?"),
        ("model.lora.ranks", "; did you mean model.lora.rank?"),
        ("clippo.weight", "; did you mean clipo.weight?"),
        ("data.max_new_tokens", "; did you mean rollout.max_new_tokens?"),
        ("zzz", ""),
    ],
)
def test_an_unknown_field_gets_the_most_similar_one(unknown: str, meant: str) -> None:
    assert suggestion(unknown, TrainConfig) == meant
