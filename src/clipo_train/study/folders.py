"""The folders of a study's runs: what an unfinished run left in one is removed, what a user put there never."""

import shutil
from collections.abc import Iterable

from clipo_train.errors import ConfigError
from clipo_train.study.config import START, Run

_LOGS = {"config.yaml", "metrics.jsonl", "completions.jsonl"}
_HIDDEN = {".config.yaml", ".lock", ".begun"}
_POLICY = {
    "model/config.json",
    "model/generation_config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
}


def check_folders(runs: Iterable[Run]) -> None:
    """Refuses folders that hold anything but what a run of the study writes.

    Raises:
        ConfigError: There is one.
    """
    for run in runs:
        if foreign := _foreign(run):
            raise ConfigError(f"output: expected nothing but unfinished runs of the study, got {foreign!r}")


def clear_folder(run: Run) -> None:
    """Removes what an unfinished run left.

    Raises:
        ConfigError: As `check_folders`.
    """
    check_folders([run])
    if run.folder.exists():
        shutil.rmtree(run.folder)


def _foreign(run: Run) -> str | None:
    """A file in the run's folder that is not the study's, or the folder itself."""
    folder, logging = run.folder, run.config.logging
    if any(path.is_symlink() for path in (folder, folder.parent)) or (folder.exists() and not folder.is_dir()):
        return str(folder)
    ours = _POLICY if run.arm == START else _LOGS | _HIDDEN
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        of_tracker = bool(logging.trackers) and name.split("/")[0] == logging.project
        is_folder = path.is_dir() and not path.is_symlink()
        if not (name in ours or of_tracker or (is_folder and any(file.startswith(f"{name}/") for file in ours))):
            return str(path)
    return None
