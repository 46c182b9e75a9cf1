"""Where a sweep's runs are trained: what launchers have in common, and how a sweep goes through one."""

import inspect
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual import schema
from continual.config import Config, Replica, check_here
from continual.errors import ConfigError, UserError
from continual.identity import OWN_TARGETS, config_hash
from continual.provenance import submitted
from continual.sweep.jobs import Job
from continual.sweep.manifest import Manifest
from continual.sweep.others import wait_for_others
from continual.sweep.states import queue_of
from continual.sweep.stopping import StopRequests
from continual.tracking import frozen
from continual.tracking.run_status import forget_failure, has_ended, outcome_of
from continual.tracking.wandb_agent import agents_run

log = logging.getLogger(__name__)


class Launcher(ABC):
    """Trains runs as populations, in its own way; `detach` says that it does not wait for them."""

    detach = False

    def check(self, config: Config) -> None:
        """ConfigError if a run of this config cannot be trained where this launcher trains."""
        check_here(config)

    def claim(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> Sequence[Replica]:
        """Wait until no other process trains the runs that are to be trained anew, and return these: all."""
        wait_for_others(runs, stop)
        return runs

    @abstractmethod
    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> dict[Path, str]:
        """Train these runs, in populations; returns why some did not finish, by folder.

        Where a run failed, its folder says so too. Stopped when `stop` says so, with checkpoints written.
        """


def make(node: Mapping[str, Any], path: str) -> Launcher:
    """The launcher that a node of a config describes; ConfigError if it describes none."""
    schema.check(node, path)
    target = schema.locate(str(node["_target_"]))
    if not (inspect.isclass(target) and issubclass(target, Launcher)):
        raise ConfigError(f"{path}._target_: {node['_target_']} is not a subclass of {Launcher.__name__}.")
    made: Launcher = target(**{name: value for name, value in node.items() if not name.startswith("_")})
    return made


def from_manifest(manifest: Manifest) -> Launcher:
    """The launcher that the sweep had, which waits for its runs; one of this program's own.

    A folder may be a stranger's: ConfigError if it names any other class.
    """
    target = str(manifest.launcher.get("_target_"))
    if not target.startswith(OWN_TARGETS):
        raise ConfigError(
            f"{manifest.path} names the launcher {target}, which is no part of this program; "
            "start the sweep's own command again."
        )
    node = {**manifest.launcher, "detach": False} if "detach" in manifest.launcher else manifest.launcher
    return make(node, f"launcher in {manifest.path}")


def launch(
    jobs: Sequence[Job], launcher: Launcher, node: Mapping[str, Any], sweep: Path
) -> Mapping[Path, str]:
    """Enter jobs into the sweep's manifest, freeze their configs and train them.

    The caller holds the lock of the sweep's folder and has checked the jobs under it. `node` describes the
    launcher, for whoever resumes the sweep. Returns why some runs did not finish, by folder.
    """
    manifest = Manifest.read(sweep) or Manifest.begin(sweep)
    _refuse_other_configs(jobs, manifest)
    manifest.launcher = dict(node)
    for job in jobs:
        manifest.add(job.run, job.number, job.overrides)
    # Before the folders: what they hold is then known, whenever this process is killed.
    manifest.write()
    for job in jobs:
        if outcome_of(job.run) is None:
            frozen.write(job.run, job.hydra)
    return finish([job.run for job in jobs], manifest, launcher)


def _refuse_other_configs(jobs: Sequence[Job], manifest: Manifest) -> None:
    """UserError if a job in SLURM's queue has another config for one of these runs, such as fewer tasks."""
    hashes = {manifest.name(job.run.folder): config_hash(job.run.config) for job in jobs}
    changed = {n for n, now in hashes.items() if n in manifest.runs and manifest.runs[n].config_hash != now}
    theirs = queued_jobs(manifest, changed)
    if theirs:
        raise UserError(
            f"{manifest.sweep} has {len(theirs)} jobs in SLURM's queue with other configs for these runs, "
            "such as fewer tasks; wait for them or cancel them first: "
            f"python scripts/sweep.py wait|cancel {manifest.sweep}"
        )


def queued_jobs(manifest: Manifest, names: Collection[str]) -> list[str]:
    """The jobs that are to train some of these runs; none on a machine without SLURM.

    UserError if SLURM is here and does not answer.
    """
    if not names or shutil.which("squeue") is None:  # a folder may have been copied from a cluster
        return []
    return [job for job in queue_of(manifest) if not {*names}.isdisjoint(manifest.submissions[job])]


def finish(runs: Sequence[Replica], manifest: Manifest, launcher: Launcher) -> Mapping[Path, str]:
    """Train those of these runs that are not finished; returns why some still are not, by folder."""
    with agents_run([] if launcher.detach else runs):
        return _finish(runs, manifest, launcher)


def _finish(runs: Sequence[Replica], manifest: Manifest, launcher: Launcher) -> Mapping[Path, str]:
    submitted.expect(manifest.code)
    unfinished = [run for run in runs if outcome_of(run) is None]
    log.info(
        "%d runs, %d of them finished before; results in %s",
        len(runs),
        len(runs) - len(unfinished),
        manifest.sweep,
    )
    if not unfinished:
        return {}
    with StopRequests(manifest.sweep) as stop:
        for run in launcher.claim(unfinished, manifest, stop):
            forget_failure(run)
        reasons = launcher.train(unfinished, manifest, stop)
    failed = {run.folder for run in unfinished if run.folder in reasons and has_ended(run)}
    if failed:
        log.error("%d of %d runs failed; each says why in its summary.json", len(failed), len(runs))
    if len(reasons) > len(failed):
        others = [reason for folder, reason in reasons.items() if folder not in failed]
        log.error(
            "%d of %d runs did not end: %s To resume: python scripts/sweep.py resume %s",
            len(others),
            len(runs),
            others[0],
            manifest.sweep,
        )
    return reasons
