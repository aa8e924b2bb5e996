"""What a run began with, told by its content: a resumed run that finds other content under the same name is refused."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from clipo_train.errors import ConfigError
from clipo_train.prompts import EncodedExample

Fingerprints = Mapping[str, str]
"""By the field of the configuration that names it: SHA-256 of the content."""


def examples_fingerprint(items: Sequence[EncodedExample]) -> str:
    """SHA-256 of a training set: its prompts' tokens and its ground truths, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.prompt_ids, item.example.answer, *item.example.alternatives]).encode())
    return digest.hexdigest()


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's parameters, by name."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_fingerprints(saved: Fingerprints, own: Fingerprints) -> None:
    """Compares a checkpoint's fingerprints with those of the run that resumes it.

    Raises:
        ConfigError: One is different; names its field.
    """
    for field, content in own.items():
        if field in saved and saved[field] != content:
            raise ConfigError(f"{field}: expected the content that the run began with, got another under the same name")
