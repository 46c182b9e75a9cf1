"""Launchers and sweepers that are not this program's: those of Hydra and of its plugins.

They are handed the jobs' overrides, compose on their own, and call `train_frozen` for each job. What is
trained is what was checked and frozen before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Private, but asked for by the public HydraContext; tests/sweep/test_launcher.py goes through all of this.
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher as HydrasLauncher
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from continual.cli.composing import Composer
from continual.cli.grammar import quoted
from continual.cli.sweep import Sweep, Sweeper
from continual.config import Replica, num_steps
from continual.errors import Stopped, UserError
from continual.sweep.launcher import Launcher
from continual.sweep.manifest import Manifest
from continual.sweep.stopping import StopRequests, StopSignals
from continual.tracking import frozen
from continual.tracking.run_status import failure, outcome_of

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class ForeignLauncher(Launcher):
    """Has a launcher of Hydra's train the runs, each one alone."""

    def __init__(self, composer: Composer, config: DictConfig) -> None:
        self._composer, self._config = composer, config

    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> dict[Path, str]:
        """See Launcher."""
        jobs = []
        for run in runs:
            name = manifest.name(run.folder)
            place = [f"hydra.sweep.dir={quoted(str(manifest.sweep))}", f"hydra.sweep.subdir={quoted(name)}"]
            # Its config is frozen already: Hydra is not to write another one.
            jobs.append([*manifest.runs[name].overrides, *place, "hydra.output_subdir=null"])
        with self._composer.started() as loader:
            trains = Plugins.instance().instantiate_launcher(
                hydra_context=_context(loader), task_function=train_frozen, config=self._config
            )
            try:
                trains.launch(jobs, initial_job_idx=0)
            except KeyboardInterrupt:
                raise Stopped(
                    "stopped, with checkpoints written; the same command resumes the sweep."
                ) from None
        unfinished = (run for run in runs if outcome_of(run) is None)
        return {run.folder: failure(run) or "it did not finish." for run in unfinished}


class ForeignSweeper(Sweeper):
    """Has a sweeper of Hydra's choose the jobs, which are trained like all others."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def foreseen(self, arguments: Sequence[str], composer: Composer) -> list[list[str]]:
        """See Sweeper: what such a sweeper will choose is not known before."""
        return []

    def sweep(self, arguments: Sequence[str], sweep: Sweep) -> None:
        """See Sweeper."""
        config = self._config.copy()
        with read_write(config), open_dict(config):
            config.hydra.launcher = {"_target_": _BASIC}  # in the place of which is put ours
            config.hydra.sweep.dir = str(sweep.folder)
        with sweep.composer.started() as loader:
            chooses = Plugins.instance().instantiate_sweeper(
                hydra_context=_context(loader), task_function=train_frozen, config=config
            )
            if not isinstance(getattr(chooses, "launcher", None), HydrasLauncher):
                raise UserError(
                    f"hydra/sweeper: {type(chooses).__name__} keeps its launcher to itself; "
                    "add hydra/launcher=basic, with which it trains the runs one by one."
                )
            chooses.launcher = _Bridge(sweep)
            with read_write(config):  # Hydra 1.4 compares each job's launcher with it
                config.hydra.launcher = self._config.hydra.launcher
            chooses.sweep(list(arguments))


class _Bridge(HydrasLauncher):
    """What a sweeper of Hydra's takes for its launcher."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def setup(self, **_: Any) -> None:
        """Nothing is left to set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train these jobs; each returns its score."""
        returned = []
        for result in self._sweep.train([list(one) for one in job_overrides], initial_job_idx):
            one = JobReturn()
            one.overrides = result.job.overrides
            one.working_dir = str(result.job.run.folder)
            one.status = JobStatus.COMPLETED if result.reason is None else JobStatus.FAILED
            score = float("nan") if result.score is None else result.score
            one.return_value = (
                score if result.reason is None else UserError(f"{result.job.run.folder}: {result.reason}")
            )
            returned.append(one)
        return returned


def train_frozen(composed: DictConfig) -> float | None:
    """Train the run that is frozen in the output folder; what a launcher of Hydra's calls for each job.

    Returns its score, None if it has none. A failure is recorded in the folder, and ends no other run.
    """
    from continual import training
    from continual.sweep.others import record_unless_held
    from continual.tracking.progress import Progress

    folder = Path(HydraConfig.get().runtime.output_dir)
    run = frozen.read(folder, folder.parent.name, trusted=None)
    try:
        with Progress(num_steps(run.config)) as progress, StopSignals() as stop:
            (outcome,) = training.train([run], lambda snapshot: progress.update(0, snapshot), stop)
    except training.Interrupted:
        raise KeyboardInterrupt from None  # which Hydra lets through
    except UserError as error:
        record_unless_held([run], str(error))
        return None
    return outcome.score


def _context(loader: ConfigLoader) -> HydraContext:
    return HydraContext(config_loader=loader, callbacks=Callbacks())
