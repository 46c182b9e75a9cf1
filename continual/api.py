"""The Python API: `train` does what the command line does, `load` reads what runs have left.

runs = continual.train("agent=l2_init,base", "seed=range(3)", folder="outputs/mine")
runs.tasks  # a row per run and task
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import DataError, UserError

if TYPE_CHECKING:
    from continual.cli.sweeping import Trained
    from continual.report.runs import Runs

log = logging.getLogger(__name__)

_Folder = str | os.PathLike[str]


def train(
    *overrides: str,
    folder: _Folder | None = None,
    workers: int | None = None,
    config_dir: _Folder | None = None,
) -> "Runs":
    """Train the runs that these overrides name, as `scripts/train.py --multirun` does, and load them.

    Args:
        overrides: in the command line's grammar: "agent=l2_init,base", "seed=range(3)", "sweep=paper",
            "hydra/sweeper=optuna", ...
        folder: where the results go, one folder below it for each run; None: a new one in outputs/. The same
            call with the same folder resumes, and leaves finished runs alone.
        workers: how many processes train at a time; 1: this one. None: what the config says, which is one for
            each CPU core or visible GPU.
        config_dir: a folder of your own options (`agent/mine.yaml`), beside the program's.

    Returns what `load` returns for the folder. A run that failed is a row with that status, and is warned of.
    Raises UserError, with one sentence, for a mistake, before anything is written; Stopped, with checkpoints
    written, after a Ctrl-C or SIGTERM that came to the main thread or `scripts/sweep.py cancel`.
    """
    trained = launch(*overrides, folder=folder, workers=workers, config_dir=config_dir)
    if trained.failed:
        first = trained.failed[0]
        log.warning(
            "%d of %d runs did not finish, such as %s: %s",
            len(trained.failed),
            len(trained.results),
            first.job.run.folder,
            str(first.reason).strip().splitlines()[-1],
        )
    try:
        return load(trained.folder)
    except DataError:
        if not trained.is_detached:
            raise
        raise UserError(
            f"{trained.folder}: its runs are in the queue and have no results yet; load reads them when they "
            "have, and launch submits without loading."
        ) from None


def launch(
    *overrides: str,
    folder: _Folder | None = None,
    workers: int | None = None,
    config_dir: _Folder | None = None,
) -> "Trained":
    """As `train`, but nothing is loaded: for `hydra.launcher.detach=true`, whose runs are only in the queue.

    What it returns has the sweep's `folder`.
    """
    from continual.cli.composing import Composer
    from continual.cli.messages import one_sentence
    from continual.cli.sweeping import train_sweep

    _check_overrides(overrides)
    own_folder = None if config_dir is None else Path(config_dir)
    given: dict[str, Any] = {}
    if folder is not None:
        given["hydra.sweep.dir"] = str(folder)
    if workers is not None:
        given["hydra.launcher.workers"] = workers
    for key in given:
        if any(one.lstrip("+").partition("=")[0] == key for one in overrides):
            raise UserError(f"{key}: given twice, as an override and as an argument; leave out one of them.")
    try:
        return train_sweep(Composer(own_folder=own_folder, given=given), overrides)
    except Exception as error:
        sentence = None if isinstance(error, UserError) else one_sentence(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def load(*folders: _Folder) -> "Runs":
    """Read all runs below these folders, at any depth, into tables.

    Raises UserError if a folder is missing or holds no run.
    """
    from continual.report import runs

    return runs.load(*(Path(folder).expanduser() for folder in folders))


def _check_overrides(overrides: tuple[str, ...]) -> None:
    for one in overrides:
        if not isinstance(one, str):
            raise UserError(f"{one!r}: overrides are texts, such as 'agent=l2_init'.")
        if one.startswith("-"):
            raise UserError(
                f"{one}: flags belong to the command line; give overrides, such as 'agent=l2_init'."
            )
