"""What SLURM's answers are taken to mean; the commands here are stand-ins, in test_slurm.py they are real."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import pytest

from continual import provenance, training
from continual.config import Replica
from continual.sweep import cli, others, slurm_job, slurm_queue
from continual.sweep.launcher import finish
from continual.sweep.manifest import Manifest
from continual.sweep.slurm import SlurmLauncher
from continual.sweep.slurm_job import PopulationJob
from continual.tracking import frozen
from continual.tracking.lock import FolderLock
from continual.tracking.recorder import Recorder
from tests.command_line import CommandLine
from tests.sweep.subprocesses import until

Command: TypeAlias = Callable[[str, str], None]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Makes a stand-in for a command, of a line of shell."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, line: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    return make


@pytest.fixture
def sweep(train: CommandLine, workplace: Path, command: Command) -> Path:
    """A sweep of one unfinished run, of which SLURM says that job 7_0 trains it."""
    assert train("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", "seed=0").code == 0
    folder = workplace / "sweep"
    (folder / "0" / "summary.json").unlink()
    manifest = Manifest.read(folder)
    assert manifest is not None
    manifest.add_submission("7_0", [run_of(folder)])
    manifest.write()
    command("squeue", f"touch {folder}/asked; [ -e {folder}/gone ] || echo '7|0|RUNNING|node1'")
    return folder


def run_of(sweep: Path) -> Replica:
    return frozen.read(sweep / "0", sweep.name)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("JobId=7 JobState=RUNNING RunTime=00:00:03 TimeLimit=00:02:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=00:00:03 TimeLimit=00:02:00", True),
        ("JobId=7 JobState=COMPLETING RunTime=00:02:01 TimeLimit=00:02:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=1-02:00:03 TimeLimit=1-02:00:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=23:00:03 TimeLimit=1-02:00:00", True),
        ("JobId=7 JobState=COMPLETING RunTime=9-00:00:03 TimeLimit=UNLIMITED", True),
        ("slurm_load_jobs error: Invalid job id specified", False),
    ],
)
def test_a_job_that_is_being_cancelled(answer: str, expected: bool, command: Command) -> None:
    command("scontrol", f'[ "$*" = "show job --oneliner 7" ] && echo "{answer}"')
    assert slurm_queue.is_being_cancelled("7") is expected


def test_a_job_that_trains_is_waited_for_and_says_why_its_run_failed(
    sweep: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job holds its runs' folders, as seen from here."""
    monkeypatch.setattr(others, "_MOST_SECONDS", 0.1)
    command("sbatch", "exit 1")
    lock = FolderLock(sweep / "0")
    lock.acquire()

    def end() -> None:
        until((sweep / "asked").exists)
        time.sleep(0.5)  # longer than another process would be waited for
        Recorder(run_of(sweep), replicas=1).fail("out of luck")
        lock.release()
        (sweep / "gone").touch()

    job = threading.Thread(target=end)
    job.start()
    manifest = Manifest.read(sweep)
    assert manifest is not None
    reasons = finish([run_of(sweep)], manifest, SlurmLauncher(poll_seconds=0.1))
    job.join()
    assert reasons == {sweep / "0": "out of luck"}


def test_an_element_of_an_array_asks_for_itself_alone(
    command: Command, monkeypatch: pytest.MonkeyPatch, sweep: Path
) -> None:
    """The id of one element is the array's, by which SLURM shows all elements: a sibling may be ending."""
    running = "JobState=RUNNING RunTime=00:00:03 TimeLimit=00:02:00"
    ending = "JobState=COMPLETING RunTime=00:00:03 TimeLimit=00:02:00"
    command("scontrol", f'case "$4" in 7_1) echo "{running}";; 7) echo "{ending}"; echo "{running}";; esac')
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    asked = iter([training.Interrupted])  # whoever takes a sibling's end for its own would train again

    def train(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        raise next(asked)

    monkeypatch.setattr(slurm_job, "_SECONDS_TO_BE_KILLED", 0)
    monkeypatch.setattr(training, "train", train)
    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit("back into the queue"))
    try:
        with pytest.raises(SystemExit, match="back into the queue"):
            PopulationJob([run_of(sweep)], asdict(provenance.code()))()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_runs_do_not_change_under_a_job(sweep: Path, train: CommandLine) -> None:
    files = [sweep / "manifest.json", sweep / "0" / ".hydra" / "config.yaml"]
    before = [file.read_text() for file in files]
    finished = train("-m", "hydra.sweep.dir=sweep", "seed=0", "env.num_tasks=9")
    assert finished.code == 1
    assert "sweep has 1 jobs in SLURM's queue with other configs for these runs" in finished.err
    assert [file.read_text() for file in files] == before


def test_what_was_submitted_before_the_lock_was_had_is_known(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the process that had it: its last submissions come after this one has read the manifest."""
    (sweep / "gone").touch()

    class LateLock(FolderLock):
        def acquire(self) -> None:
            super().acquire()
            manifest = Manifest.read(sweep)
            assert manifest is not None
            manifest.add_submission("8_0", [run_of(sweep)])
            manifest.write()

    monkeypatch.setattr(cli, "FolderLock", LateLock)
    assert cli.main(["resume", str(sweep)]) == 0
    manifest = Manifest.read(sweep)
    assert manifest is not None
    assert list(manifest.submissions) == ["7_0", "8_0"]
