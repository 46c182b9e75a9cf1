"""A disk that is full: a clear message, and the last good checkpoint stays."""

import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual import training
from continual.tracking import run_status, wandb_run
from continual.tracking.run_folder import RunFolder, read_summary
from continual.tracking.storage import StorageError
from tests import tiny
from tests.sweep import slow
from tests.sweep.subprocesses import TINY, Script, until
from tests.tracking.test_wandb_run import logged_rows, read_records


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("during", ["checkpoint", "table"])
def test_it_is_said_and_nothing_is_lost(small_disk: Path, npz: Path, tmp_path: Path, during: str) -> None:
    config: dict[str, Any] = tiny.small(npz)
    config["engine"] |= {"chunk_steps": 5, "checkpoint_minutes": 0 if during == "checkpoint" else 60}
    (left_alone,) = tiny.train([config], tmp_path / "left_alone")

    (run,) = tiny.replicas([config], small_disk)
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks == 2

    with pytest.raises(training.Interrupted):
        training.train([run], should_stop=stop)
    assert run_status.position(run) == (0, 10)
    good = (run.folder / "checkpoint.pt").read_bytes()

    ballast = _fill(small_disk)
    file = "checkpoint.pt" if during == "checkpoint" else "tasks.csv"
    with pytest.raises(StorageError, match=rf"{file} cannot be written \(No space left on device\)"):
        training.train([run])
    checkpoints = [run.folder / "checkpoint.pt", run.folder / "checkpoint.previous.pt"]
    assert good in [path.read_bytes() for path in checkpoints if path.exists()]
    assert not list(run.folder.glob("*.tmp"))

    ballast.unlink()
    training.train([run])
    assert (run.folder / "tasks.csv").read_text() == left_alone.tasks


def test_with_wandb_it_is_the_same(small_disk: Path, npz: Path, tmp_path: Path) -> None:
    """From the command line: wandb's own process can neither hold up the end nor spoil what is said."""
    own = (f"agent._target_={slow.TARGET}", "env.steps_per_task=40")
    (left_alone,) = tiny.train([tiny.small(npz, *own)], tmp_path / "left_alone")
    run = small_disk / "run"
    settings = ("engine.checkpoint_minutes=0", "engine.chunk_steps=5", "network.hidden_sizes=[9,9]")
    arguments = [
        *TINY,
        *own,
        *settings,
        f"env.dataset.path={npz}",
        "wandb.mode=offline",
        f"hydra.run.dir={run}",
    ]
    script = Script("train", *arguments, folder=tmp_path, step_seconds=0.05)
    until((run / "checkpoint.pt").exists)
    ballast = _fill(small_disk)
    assert script.wait(60) == 1
    said = script.output().splitlines()
    assert re.match(r"error: .* cannot be written \(No space left on device\); make room and start", said[-1])
    assert "Traceback" not in script.output()
    assert "Logging error" not in script.output()

    ballast.unlink()
    assert "resuming from task" in Script("train", *arguments, folder=tmp_path).succeed()
    assert (run / "tasks.csv").read_text() == left_alone.tasks
    # Whatever became of the first try.
    assert {row["task"] for row in logged_rows(read_records(run))} == {0, 1}


@pytest.mark.parametrize("room", [0, 4096, 16384])
def test_wandb_alone_has_no_room(
    small_disk: Path,
    npz: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    room: int,
) -> None:
    """Training goes on as if nothing was, and one warning tells of all runs; some get a part of a file."""
    config = tiny.small(npz, "env.num_tasks=30", "env.steps_per_task=2")
    configs = [config, {**config, "seed": 1}]
    left_alone = tiny.train(configs, tmp_path / "left_alone")

    configs = [{**one, "wandb": {**one["wandb"], "mode": "offline"}} for one in configs]
    runs = tiny.replicas(configs, tmp_path / "sweep")
    for run in runs:
        run.folder.mkdir(parents=True)
        (small_disk / run.folder.name).mkdir()
        (run.folder / "wandb").symlink_to(small_disk / run.folder.name)
    _fill(small_disk, leave=room)
    with caplog.at_level(logging.WARNING, logger=wandb_run.__name__):
        training.train(runs)
    for run, other in zip(runs, left_alone, strict=True):
        finished = tiny.Finished(run.folder)
        assert finished.tasks == other.tasks
        assert finished.summary["status"] == "completed"
    (warning,) = [record.getMessage() for record in caplog.records if record.name == wandb_run.__name__]
    assert warning.startswith("W&B runs cannot be written (OSError: ")
    assert capfd.readouterr() == ("", "")


def _fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all the room there is, but for some bytes."""
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(file.tell() - leave)
            return path
    raise AssertionError("the disk has no end")


def test_a_run_that_is_over_stays_so_when_the_next_ones_end_is_lost(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = tiny.small(npz)
    config["engine"]["keep_checkpoint"] = False
    runs = tiny.replicas([tiny.vary(config, r) for r in range(3)], tmp_path)
    write = RunFolder.write_summary

    def write_but_one(self: RunFolder, summary: Any) -> None:
        if self.path == runs[1].folder:
            raise StorageError("no room")
        write(self, summary)

    monkeypatch.setattr(RunFolder, "write_summary", write_but_one)
    with pytest.raises(StorageError, match="no room"):
        training.train(runs)
    summaries = [read_summary(run.folder) for run in runs]
    assert [summary and summary["status"] for summary in summaries] == ["completed", None, "failed"]
    monkeypatch.undo()
    outcomes = training.train(runs[1:])
    assert [outcome.status for outcome in outcomes] == ["completed", "completed"]
