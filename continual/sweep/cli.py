"""`continual-sweep status|wait|cancel|resume|upload FOLDER`: what becomes of a sweep after its start."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from continual import schema
from continual.config import Replica
from continual.errors import UserError
from continual.sweep import frozen, slurm_queue
from continual.sweep.launcher import SweepLauncher
from continual.sweep.manifest import Manifest
from continual.sweep.upload import upload
from continual.tracking import run_status
from continual.tracking.lock import hold, release_held
from continual.tracking.run_folder import read_summary

_MOST_LINES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code: 1 for a user's mistake or runs that failed."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s")
    try:
        if asked.command is upload:  # of any folder of runs
            return int(upload(asked.folder, asked.again) > 0)
        manifest = Manifest.read(asked.folder)
        if manifest is None:
            raise UserError(
                f"{asked.folder} is not the folder of a sweep: it has no manifest.json; "
                "name the hydra.sweep.dir of one that was started with -m."
            )
        code: int = asked.command(manifest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        release_held()
    return code


def status(manifest: Manifest) -> int:
    """Print how many runs are where, the jobs in SLURM's queue and the runs that failed."""
    console = Console()
    try:
        queue = _queue_of(manifest)
    except UserError as error:  # the folder tells a good deal without it
        console.print(str(error))
        queue = {}
    waiting = {name: queue[job].state.lower() for job in queue for name in manifest.submissions[job]}
    states, failures = {}, {}
    for name in manifest.runs:
        summary = read_summary(manifest.sweep / name)
        if summary is None:
            begun = (manifest.sweep / name / "tasks.csv").exists()
            states[name] = waiting.get(name, "interrupted" if begun else "not started")
        else:
            states[name] = summary["status"]
            if "error" in summary:
                failures[name] = str(summary["error"]).strip().splitlines()[-1]

    table = Table("runs", "state", box=None, pad_edge=False, title=str(manifest.sweep), title_justify="left")
    for state, count in Counter(states.values()).most_common():
        table.add_row(str(count), state)
    console.print(table)
    if queue:
        jobs = Table("job", "state", "where or why not", "runs ended", box=None, pad_edge=False)
        for job, found in list(queue.items())[:_MOST_LINES]:
            names = manifest.submissions[job]
            ended = sum(read_summary(manifest.sweep / name) is not None for name in names)
            jobs.add_row(job, found.state.lower(), found.reason, f"{ended} of {len(names)}")
        console.print(jobs)
        _and_more(console, len(queue))
    for name, reason in list(failures.items())[:_MOST_LINES]:
        console.print(f"run {name} failed: {reason}", markup=False, highlight=False)
    _and_more(console, len(failures))
    return 0


def wait(manifest: Manifest) -> int:
    """Wait for the jobs that were submitted, as the command that started the sweep does without detach."""
    if not _queue_of(manifest) and any(run_status.outcome_of(run) is None for run in _runs(manifest)):
        raise UserError(
            f"{manifest.sweep} has unfinished runs but no jobs in SLURM's queue; "
            f"to go on: python scripts/sweep.py resume {manifest.sweep}"
        )
    return resume(manifest)


def cancel(manifest: Manifest) -> int:
    """Cancel the sweep's jobs; their runs keep their checkpoints."""
    jobs = list(_queue_of(manifest))
    slurm_queue.cancel(jobs)
    print(f"{len(jobs)} jobs cancelled; to go on: python scripts/sweep.py resume {manifest.sweep}")
    return 0


def resume(manifest: Manifest) -> int:
    """Train what is not finished, from the configs as they were, on the launcher that the sweep had."""
    hold(manifest.sweep)
    runs = _runs(manifest)
    if Path(manifest.directory).is_dir():
        os.chdir(manifest.directory)  # where relative paths of the configs start
    schema.check(manifest.launcher, "launcher in manifest.json")
    launcher = instantiate(
        {**manifest.launcher, "detach": False} if _detaches(manifest) else manifest.launcher
    )
    assert isinstance(launcher, SweepLauncher)
    return int(bool(launcher.finish(runs, manifest)))


def _runs(manifest: Manifest) -> list[Replica]:
    return [frozen.read(manifest.sweep / name, manifest.sweep.name) for name in manifest.runs]


def _detaches(manifest: Manifest) -> bool:
    return bool(manifest.launcher.get("detach"))


def _queue_of(manifest: Manifest) -> dict[str, slurm_queue.QueuedJob]:
    """The sweep's jobs that are waiting or running; UserError if it has some and SLURM does not answer."""
    if not manifest.submissions:
        return {}
    queue = slurm_queue.queued()
    if queue is None:
        raise UserError("SLURM does not answer (squeue); try again on a machine where it does.")
    return {job: found for job, found in queue.items() if job in manifest.submissions}


def _and_more(console: Console, lines: int) -> None:
    if lines > _MOST_LINES:
        console.print(f"... and {lines - _MOST_LINES} more")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sweep.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="status|wait|cancel|resume|upload")
    for name, command in (("status", status), ("wait", wait), ("cancel", cancel), ("resume", resume)):
        text = str(command.__doc__).splitlines()[0]
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("folder", type=_folder, help="the sweep's folder (hydra.sweep.dir)")
        one.set_defaults(command=command)
    text = "Send to W&B what has not reached it."
    one = commands.add_parser("upload", help=text, description=text)
    one.add_argument("folder", type=_folder, help="the folder of a sweep, a run or several of them")
    one.add_argument("--again", action="store_true", help="also what is known to have arrived")
    one.set_defaults(command=upload)
    return parser


def _folder(text: str) -> Path:
    return Path(text).absolute()
