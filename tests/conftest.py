"""What tests of the trainer and of its adapters share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test bed's policy with random weights, as a Hugging Face folder."""
    from clipo_train.testbed.warm_start import build_model, build_tokenizer

    folder = tmp_path_factory.mktemp("models") / "untrained"
    build_model(0).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
