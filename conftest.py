"""What every test and doctest needs: no network, a fixed hypothesis profile, and the names of the examples."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import HealthCheck, settings

import clipo_ops

for profile, examples in (("ci", 100), ("deep", 10_000)):
    settings.register_profile(
        profile,
        max_examples=examples,
        derandomize=profile == "ci",
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch
    doctest_namespace.update({name: getattr(clipo_ops, name) for name in clipo_ops.__all__})
