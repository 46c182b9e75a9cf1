"""From overrides to runs, with every check that can be made before anything is written."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from continual.cli.checks import check_complete, check_hydra
from continual.cli.composing import Composed, Composer
from continual.config import Config, Replica
from continual.errors import ConfigError
from continual.identity import structure
from continual.sweep.folders import check_writable
from continual.sweep.jobs import Job, naming
from continual.sweep.manifest import Entry, Folders, Manifest
from continual.tracking import frozen
from continual.tracking.run_status import check_data, outcome_of


@dataclass
class Jobs:
    """The jobs of a sweep, each composed and checked once; what was found is kept for later calls."""

    composer: Composer
    trainable: Callable[[Config], None]  # the launcher's own check

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, ...], Job] = {}
        self._fingerprints: dict[str, str | None] = {}  # of the data, by structure

    def compose(self, overrides: Iterable[Sequence[str]], first: int, sweep: Path) -> list[Job]:
        """The jobs with these overrides, numbered from `first`, with the folders that go with their numbers.

        ConfigError names the first whose config cannot be run.
        """
        with self.composer.started():
            return [self._job(of, first + i, sweep) for i, of in enumerate(overrides)]

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Read the jobs' data and build their networks, one of each kind; ConfigError names the first unfit.

        For the end of all checks, because it takes longer than those. Where all is finished, nothing is read;
        where it is not, finished runs must be of the same data.
        """
        if all(outcome_of(job.run) is not None for job in jobs):
            return
        from continual.building import prepare

        for job in jobs:
            kind = structure(job.run.config)
            with naming(job.number, job.overrides):
                if kind not in self._fingerprints:
                    _, environment = prepare(job.run.config)
                    self._fingerprints[kind] = environment.fingerprint
                check_data(job.run, self._fingerprints[kind])

    def forget(self) -> None:
        """The sweep goes to another folder."""
        self._known.clear()
        self.composer.forget()

    def _job(self, overrides: Sequence[str], number: int, sweep: Path) -> Job:
        key = (str(number), *overrides)
        if key not in self._known:
            composed = self.composer.job(overrides, number)
            with naming(number, overrides):
                run = run_of(composed, sweep.name)
                self.trainable(run.config)
            self._known[key] = Job(number, composed.overrides, run, composed.hydra)
        return self._known[key]


def placed(jobs: Sequence[Job], sweep: Path) -> list[Job]:
    """The jobs with their final folders: runs that the sweep's manifest knows keep those that they have.

    ConfigError names the first whose folder will not do. Nothing but folders is looked at, so that it can be
    asked again once they are locked.
    """
    manifest = Manifest.read(sweep)
    entries = [Entry.of(job.run, job.number, job.overrides) for job in jobs]
    folders = Folders(sweep, manifest).assign([job.run.folder for job in jobs], entries)
    found: dict[str, Job] = {}
    for job, folder, entry in zip(jobs, folders, entries, strict=True):
        where = Path(os.path.normpath(folder))
        run = replace(job.run, folder=where)
        with naming(job.number, job.overrides):
            if not (manifest and manifest.holds(where, entry.config_hash)):
                check_folder(run)
            place = os.path.realpath(where)
            if place in found:
                raise ConfigError(
                    f"the output folder {where} is an earlier job's as well; "
                    "let hydra.sweep.subdir differ, as ${hydra.job.num} does."
                )
        runtime = {**job.hydra["runtime"], "output_dir": str(where.absolute())}
        found[place] = replace(job, run=run, hydra={**job.hydra, "runtime": runtime})
    return list(found.values())


def run_of(composed: Composed, group: str) -> Replica:
    """The run that a composed config describes; ConfigError if it cannot be run. No folder is looked at."""
    check_hydra(composed.hydra)
    check_complete(composed.config)
    return Replica(composed.config, composed.folder, frozen.chosen(composed.choices), group)


def check_folder(run: Replica) -> None:
    """ConfigError if the run's folder cannot be written, or holds a run with other results to come."""
    check_writable(run.folder)
    frozen.check(run)
