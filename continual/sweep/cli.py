"""`continual-sweep status|wait|cancel|resume|upload FOLDER`: what becomes of a sweep after its start.

`continual.cli.sweep_command` has the whole command, with what stands on reports: this room knows none.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.table import Table

from continual.errors import UserError
from continual.identity import config_hash
from continual.sweep import slurm_queue
from continual.sweep.manifest import Manifest
from continual.sweep.states import SweepState, look, queue_of, seconds_left
from continual.sweep.stopping import StopSignals, request_stop
from continual.tracking.lock import FolderLock, InUseError, holder

if TYPE_CHECKING:
    from continual.config import Replica

_MOST_LINES = 20
_SECONDS_BETWEEN_LOOKS = 0.5
_MOST_SECONDS_TO_STOP = 600


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None, further: Sequence[Callable[[Commands], None]] = ()) -> int:
    """Do what the command line says; returns the exit code: 1 for a user's mistake or runs that failed.

    `further` add commands on any folder with runs, by `add_command`.
    """
    asked = _parser(further).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s")
    try:
        if asked.on_any_folder:
            return int(asked.command(asked))
        manifest = Manifest.read(asked.folder)
        if manifest is None:
            raise UserError(
                f"{asked.folder} is not the folder of a sweep: it has no manifest.json; "
                "name the hydra.sweep.dir of one that was started with -m."
            )
        code: int = asked.command(manifest, asked)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def status(manifest: Manifest, asked: argparse.Namespace) -> int:
    """Print how many runs are where, how far they are, who trains them, and which of them failed."""
    console = Console(markup=False, highlight=False, emoji=False)
    found = look(manifest)
    for note in found.notes:
        console.print(note)
    console.print(str(manifest.sweep))
    console.print(_states(found))
    if found.owner:
        console.print(f"trained by {found.owner}{_time_left(manifest.sweep)}")
    if found.queue:
        jobs = Table("job", "state", "where or why not", "runs ended", box=None, pad_edge=False)
        for job, one in list(found.queue.items())[:_MOST_LINES]:
            names = [name for name in manifest.submissions[job] if name in found.runs]
            ended = sum(found.runs[name].state in _ENDED for name in names)
            jobs.add_row(job, one.state.lower(), one.reason, f"{ended} of {len(names)}")
        console.print(jobs)
        _and_more(console, len(found.queue))
    wrong = {name: run for name, run in found.runs.items() if run.reason}
    for name, run in list(wrong.items())[:_MOST_LINES]:
        console.print(f"run {name} {'failed' if run.state == 'failed' else 'is damaged'}: {run.reason}")
    _and_more(console, len(wrong))
    return 0


def wait(manifest: Manifest, asked: argparse.Namespace) -> int:
    """Wait until the sweep has ended; for SLURM's jobs, as the command does that started it."""
    if queue_of(manifest) and holder(manifest.sweep) is None:
        return resume(manifest, asked)
    with StopSignals() as stop:
        found = look(_now(manifest))
        if found.is_alive:
            print(f"waiting for {found.owner or 'the runs that still train'}", flush=True)
        while found.is_alive:
            if stop():
                raise UserError("stopped waiting; the sweep itself goes on training.")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            if holder(manifest.sweep) is None:
                found = look(_now(manifest))
    unfinished = [name for name, run in found.runs.items() if run.state not in (*_ENDED, "failed")]
    if unfinished:
        raise UserError(
            f"{manifest.sweep} has {len(unfinished)} unfinished runs, and no process or job trains them; "
            f"to resume: python scripts/sweep.py resume {manifest.sweep}"
        )
    return int(bool(found.of_state("failed", "damaged")))


def cancel(manifest: Manifest, asked: argparse.Namespace) -> int:
    """Stop what trains the sweep, here or in SLURM's queue; its runs keep their checkpoints."""
    jobs, owner = _cancel_jobs(manifest), holder(manifest.sweep)
    if owner is not None and not jobs:
        request_stop(manifest.sweep, owner)
        print(f"asked {owner} to stop; it writes checkpoints after the chunk that it is at", flush=True)
    elif owner is not None:
        print(f"{len(jobs)} jobs cancelled; {owner}, which waits for them, takes note of it", flush=True)
    until = time.monotonic() + _MOST_SECONDS_TO_STOP
    while owner is not None and holder(manifest.sweep) == owner:
        if time.monotonic() > until:
            raise UserError(f"{owner} has not stopped yet; it will after its chunk of steps.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if jobs:  # it may be submitting the next of several arrays
            jobs += _cancel_jobs(_now(manifest), jobs)
    jobs += _cancel_jobs(_now(manifest), jobs)
    what = "the sweep is stopped" if owner and not jobs else f"{len(jobs)} jobs cancelled"
    print(f"{what}; to resume: python scripts/sweep.py resume {manifest.sweep}")
    return 0


def _cancel_jobs(manifest: Manifest, before: Collection[str] = ()) -> list[str]:
    """Cancel the sweep's jobs in SLURM's queue, but those that were cancelled `before`; returns them."""
    jobs = [job for job in queue_of(manifest) if job not in before]
    slurm_queue.cancel(jobs)
    if jobs:
        # The process that waits for the jobs, if there is one, has the lock and notes it.
        with contextlib.suppress(InUseError), FolderLock(manifest.sweep):
            manifest = _now(manifest)
            names = (name for job in jobs for name in manifest.submissions[job])
            manifest.cancelled = list(dict.fromkeys([*manifest.cancelled, *names]))
            manifest.write()
    return jobs


def _now(manifest: Manifest) -> Manifest:
    """The manifest as it is by now: whoever has the sweep's lock may add to it."""
    return Manifest.read(manifest.sweep) or manifest


def resume(manifest: Manifest, asked: argparse.Namespace) -> int:
    """Train what is not finished, from the configs as they were, on the launcher that the sweep had."""
    from continual.sweep.launcher import finish, from_manifest  # which import torch

    with FolderLock(manifest.sweep):
        manifest = _now(manifest)
        launcher = from_manifest(manifest)
        runs, lost = _runs(manifest, asked.trust)
        if Path(manifest.directory).is_dir():
            os.chdir(manifest.directory)  # where relative paths of the configs start
        reasons = finish(runs, manifest, launcher)
    for reason in lost:
        print(f"error: {reason}", file=sys.stderr)
    return int(bool(reasons or lost))


def upload(asked: argparse.Namespace) -> int:
    """Send to W&B what has not reached it."""
    from continual.sweep.upload import upload as send  # which takes longer to import

    return int(send(asked.folder, asked.again) > 0)


def _runs(manifest: Manifest, trusted: Sequence[str]) -> "tuple[list[Replica], list[str]]":
    """The runs whose configs can be read, and what is wrong with the others; UserError if there is none."""
    from continual.tracking import frozen

    runs, lost = [], []
    for name, entry in manifest.runs.items():
        try:
            run = frozen.read(manifest.sweep / name, manifest.sweep.name, trusted)
        except UserError as error:
            lost.append(str(error))
            continue
        if config_hash(run.config) == entry.config_hash:
            runs.append(run)
        else:  # the process that was to prolong the sweep was killed before it came to this run
            lost.append(f"{run.folder} has another config than the sweep; start the sweep's command again.")
    if lost and not runs:
        raise UserError(lost[0])
    return runs, lost


_ENDED = ("completed", "diverged")


def _states(found: SweepState) -> Table:
    table = Table("runs", "state", "tasks done", "mean score", box=None, pad_edge=False)
    by_state: dict[str, list[str]] = {}
    for name, run in found.runs.items():
        by_state.setdefault(run.state, []).append(name)
    for state, names in sorted(by_state.items(), key=lambda item: -len(item[1])):
        runs = [found.runs[name] for name in names]
        scores = [run.score for run in runs if run.score is not None]
        mean = f"{sum(scores) / len(scores):.4f}" if scores else ""
        table.add_row(str(len(names)), state, str(sum(run.tasks_done for run in runs)), mean)
    return table


def _time_left(sweep: Path) -> str:
    left = seconds_left(sweep)
    return "" if left is None else f"; about {timedelta(seconds=round(left))} left"


def _and_more(console: Console, lines: int) -> None:
    if lines > _MOST_LINES:
        console.print(f"... and {lines - _MOST_LINES} more")


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command on any `folder` with runs; its help is the first line of its docstring."""
    text = str(command.__doc__).splitlines()[0]
    one: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    one.add_argument("folder", type=_folder, help="the folder of a sweep, a run or several of them")
    one.set_defaults(command=command, on_any_folder=True)
    return one


def _parser(further: Sequence[Callable[[Commands], None]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sweep.py", description="What becomes of a sweep after its start.")
    commands: Commands = parser.add_subparsers(required=True)
    for name, command in (("status", status), ("wait", wait), ("cancel", cancel), ("resume", resume)):
        text = str(command.__doc__).splitlines()[0]
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("folder", type=_folder, help="the sweep's folder (hydra.sweep.dir)")
        one.set_defaults(command=command, on_any_folder=False, trust=[])
        if name in ("wait", "resume"):
            one.add_argument(
                "--trust",
                action="append",
                metavar="MODULE",
                help="a module or package of your own that the runs' configs may name; can be repeated",
            )
    one = add_command(commands, "upload", upload)
    one.add_argument("--again", action="store_true", help="also what is known to have arrived")
    for add in further:
        add(commands)
    commands.metavar = "|".join(commands.choices)
    return parser


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()
