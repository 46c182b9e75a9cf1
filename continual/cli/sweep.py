"""A sweep in its folder, and the sweepers that choose its runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.cli.composing import Composer
from continual.cli.jobs import Jobs, placed
from continual.sweep import launcher
from continual.sweep.jobs import Job
from continual.tracking import frozen
from continual.tracking.run_status import outcome_of
from continual.tracking.storage import replace_file


@dataclass(frozen=True)
class Result:
    """What became of a job: its score (None: it has none, as when it diverged), or why it did not finish."""

    job: Job
    score: float | None
    reason: str | None = None


class Sweeper(ABC):
    """Which runs a sweep consists of; `detaches` says that it needs no results to choose them."""

    detaches = False

    @abstractmethod
    def foreseen(self, arguments: Sequence[str], composer: Composer) -> list[list[str]]:
        """The overrides of the jobs that can be known beforehand, to be checked before anything is written.

        UserError if these arguments make no such sweep.
        """

    @abstractmethod
    def sweep(self, arguments: Sequence[str], sweep: "Sweep") -> None:
        """Have the runs trained."""


@dataclass
class Sweep:
    """A sweep in its folder, for its sweeper: `train` has jobs trained and says what became of them.

    Attributes:
        config: what was composed for the sweep as a whole, as plain values with `hydra` among them.
        results: what became of all jobs so far.
    """

    composer: Composer
    folder: Path
    launcher: launcher.Launcher
    node: Mapping[str, Any]
    config: Mapping[str, Any]
    jobs: Jobs
    results: list[Result] = field(default_factory=list)

    def check(self, overrides: Sequence[Sequence[str]], first: int = 0) -> list[Job]:
        """The jobs with these overrides, numbered from `first`, in the folders that they are to have.

        ConfigError names the first that cannot be trained, or whose folder will not do.
        """
        found = placed(self.jobs.compose(overrides, first, self.folder), self.folder)
        self.jobs.prepare(found)
        return found

    def places(self, overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """The jobs with these overrides, in the folders that they have; nothing is asked of this machine."""
        return placed(self.jobs.compose(overrides, first, self.folder), self.folder)

    def train(self, overrides: Sequence[Sequence[str]], first: int) -> list[Result]:
        """Train the jobs with these overrides, numbered from `first`."""
        jobs = self.check(overrides, first)
        reasons = launcher.launch(jobs, self.launcher, self.node, self.folder)
        results = [self._result(job, reasons.get(job.run.folder)) for job in jobs]
        self.results += results
        return results

    def save_config(self) -> None:
        """Write the sweep's own config into its folder, as Hydra does."""
        replace_file(self.folder / "multirun.yaml", frozen.as_yaml(self.config).encode())

    def _result(self, job: Job, reason: str | None) -> Result:
        outcome = outcome_of(job.run)
        if reason is None and outcome is not None:
            return Result(job, outcome.score)
        if reason is None and self.launcher.detach:
            return Result(job, None)
        return Result(job, None, reason or "it did not finish.")
