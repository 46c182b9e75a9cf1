"""What the launchers behind `--multirun` share: from Hydra's jobs to checked and frozen runs."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from continual.cli import jobs
from continual.cli.plain import plain
from continual.config import Config, Replica, check_here
from continual.errors import UserError
from continual.provenance import submitted
from continual.sweep import frozen
from continual.sweep.manifest import Manifest
from continual.sweep.stopping import StopSignals
from continual.tracking import run_status
from continual.tracking.lock import hold

log = logging.getLogger(__name__)


class SweepLauncher(Launcher, ABC):
    """All jobs are composed and checked before the first is run, and then trained as populations.

    How they are trained is a subclass's matter; `detach` says that it does not wait for them.
    """

    detach = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, numbered from `initial_job_idx`; each returns its total average online accuracy."""
        sweep = Path(self.config.hydra.sweep.dir)
        of_sweep = jobs.of_sweep(self.hydra_context.config_loader, self.config)
        found = of_sweep.check(job_overrides, initial_job_idx, self.check)
        hold(sweep)
        manifest = Manifest.read(sweep) or Manifest.begin(sweep)
        manifest.launcher = plain(self.config.hydra.launcher)
        for job in found:
            manifest.add(job.run, job.number, job.overrides)
        # Before the folders: what they hold is then known, whenever this process is killed.
        manifest.write()
        for job in found:
            if run_status.outcome_of(job.run) is None:
                frozen.write(job.run, job.hydra)
        reasons = self.finish([job.run for job in found], manifest)
        return [self._job_return(job, reasons.get(job.run.folder)) for job in found]

    def check(self, config: Config) -> None:
        """ConfigError if a run of this config cannot be trained where this launcher trains."""
        check_here(config)

    def finish(self, runs: Sequence[Replica], manifest: Manifest) -> Mapping[Path, str]:
        """Train those of these runs that are not finished; returns why some still are not, by folder."""
        submitted.expect(manifest.code)
        unfinished = [run for run in runs if run_status.outcome_of(run) is None]
        log.info(
            "%d runs, %d of them finished before; results in %s",
            len(runs),
            len(runs) - len(unfinished),
            manifest.sweep,
        )
        if not unfinished:
            return {}
        for run in unfinished:
            run_status.forget_failure(run)
        with StopSignals() as stop:
            reasons = self.train(unfinished, manifest, stop)
        if reasons:
            log.error("%d of %d runs failed; each says why in its summary.json", len(reasons), len(runs))
        return reasons

    @abstractmethod
    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopSignals) -> dict[Path, str]:
        """Train these runs, in populations; returns why some did not finish, by folder.

        Where a run failed, its folder says so too. UserError when `stop` says so, with checkpoints written.
        """

    def _job_return(self, job: jobs.Job, reason: str | None) -> JobReturn:
        run = job.run
        result = _QuietJobReturn()
        result.overrides = job.overrides
        result.working_dir = str(run.folder)
        result.task_name = job.hydra["job"]["name"]
        result.status = JobStatus.COMPLETED
        outcome = run_status.outcome_of(run)
        if reason is None and outcome is not None:
            total = outcome.total_average_online_accuracy
            result.return_value = float("nan") if total is None else total
        elif reason is None and self.detach:
            result.return_value = None
        else:
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"{run.folder}: {reason or 'it did not finish.'}")
        return result


class _QuietJobReturn(JobReturn):
    """Raises a failed job's error without the line on stderr that Hydra has for it."""

    @property
    def return_value(self) -> float | None:
        if self.status == JobStatus.FAILED:
            raise self._return_value
        value: float | None = self._return_value
        return value

    @return_value.setter
    def return_value(self, value: float | UserError | None) -> None:
        self._return_value = value
