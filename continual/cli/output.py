"""Where a command's results go, and what surrounds its training: the lock, the log, the environment."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.utils import configure_log, env_override
from omegaconf import OmegaConf

from continual.cli.composing import resolving
from continual.sweep.folders import free_name, make_new
from continual.tracking.lock import FolderLock
from continual.tracking.storage import StorageError

StartLog: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Begins to log, as Hydra's own node, with the output folder in it, says."""


def output_folder(written: str, resolved: Path) -> tuple[Path, bool]:
    """Where results go, and whether that has to be a new folder.

    `written` is the config's text. A folder that is named by the time of day is to be a new one: it gets
    another name where there is one already.
    """
    is_new = "${now:" in written
    return (free_name(resolved) if is_new else resolved), is_new


@contextmanager
def locked(folder: Path, is_new: bool) -> Iterator[bool]:
    """Within it, this folder is this process's; False if it was to be new and another process made it."""
    if is_new and not make_new(folder):
        yield False
        return
    with FolderLock(folder):
        yield True


@contextmanager
def surroundings(hydra: Mapping[str, Any]) -> Iterator[None]:
    """The environment variables that a config sets (`hydra.job.env_set`)."""
    with env_override({name: str(value) for name, value in (hydra["job"].get("env_set") or {}).items()}):
        yield


def log_run(hydra: Mapping[str, Any]) -> None:
    """Log to the console and to the run's folder."""
    _configure(hydra, "job_logging")


def log_sweep(hydra: Mapping[str, Any]) -> None:
    """Log to the console."""
    _configure(hydra, "hydra_logging")


def no_log(hydra: Mapping[str, Any]) -> None:
    """Leave logging as it is: it is the calling program's matter."""


def _configure(hydra: Mapping[str, Any], which: str) -> None:
    # Lines for the log in a folder on a full disk are lost without a traceback each.
    logging.raiseExceptions = False
    config = OmegaConf.create({"hydra": dict(hydra)})
    try:
        with resolving(config):
            configure_log(config.hydra[which], config.hydra.verbose)
    except (OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, ValueError) else error
        if not isinstance(cause, OSError):
            raise
        raise StorageError(
            f"the log in {hydra['runtime']['output_dir']} cannot be written ({cause.strerror}); "
            "make room or choose another folder, and start the same command again."
        ) from error
