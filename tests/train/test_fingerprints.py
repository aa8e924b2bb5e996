"""A resumed run that finds other data or other weights under the same name is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipo_train.config.files import load_config
from clipo_train.errors import ConfigError
from clipo_train.testbed.warm_start import build_model
from clipo_train.trainer import Trainer


def resume(config: Path) -> None:
    Trainer(load_config(config, ["--resume", "--steps", "3"]), show_progress=False).train()


@pytest.mark.parametrize("change", ["prompt", "answer"])
def test_other_data(config_file: Callable[..., Path], tmp_path: Path, change: str) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{number}+1=", "answer": str(number)} for number in range(4)]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = config_file(data={"train": str(source), "verifier": "exact_match"})
    Trainer(load_config(config), show_progress=False).train()
    rows[2][change] = "7"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ConfigError, match=r"^data\.train: expected the content that the run began with, got another"):
        resume(config)
    rows[2] = {"prompt": "2+1=", "answer": "2"}
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    resume(config)


@pytest.mark.parametrize("sections", [{"model": {"lora": {"rank": 2}}}, {"loss": {"kl_weight": 0.1}}])
def test_other_weights_that_stay_part_of_the_run(
    config_file: Callable[..., Path], untrained: Path, tmp_path: Path, sections: dict[str, dict[str, object]]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    config = config_file(**(sections | {"model": {**sections.get("model", {}), "path": str(model)}}))
    Trainer(load_config(config), show_progress=False).train()
    build_model(1).save_pretrained(model)
    with pytest.raises(ConfigError, match=r"^model\.path: expected the content that the run began with, got another"):
        resume(config)


def test_the_weights_that_a_run_began_with_are_not_needed_again(
    config_file: Callable[..., Path], untrained: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    config = config_file(model={"path": str(model)})
    Trainer(load_config(config), show_progress=False).train()
    build_model(1).save_pretrained(model)
    resume(config)
