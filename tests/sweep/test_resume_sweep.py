"""A sweep on this machine that is killed, grown or started twice ends as one that was left alone."""

import re
import signal
import time
from pathlib import Path

import pytest

from tests.sweep import slow
from tests.sweep.subprocesses import Script, kill_again_and_again, sweep_arguments, tables, until

SEEDS = 4


@pytest.fixture(scope="module")
def left_alone(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a sweep to which nothing happened."""
    folder = tmp_path_factory.mktemp("left_alone")
    Script(
        "train",
        *sweep_arguments(npz, folder / "sweep", "hydra.launcher.workers=1", seeds=SEEDS),
        folder=folder,
    ).succeed()
    return tables(folder / "sweep", 2 * SEEDS)


def test_killed_at_random_moments(npz: Path, tmp_path: Path, left_alone: dict[str, bytes]) -> None:
    """Each time with all its workers; half of the resumes are by the command, half by sweep.py.

    A sweep that comes to its end in between is compared, and another one begun.
    """
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, "hydra.launcher.workers=2", seeds=SEEDS)

    def start(kills: int) -> Script:
        again = kills % 2 and (sweep / "7" / ".hydra" / "config.yaml").exists()
        return Script(
            "sweep" if again else "train",
            *(("resume", str(sweep), "--trust", slow.__name__) if again else arguments),
            folder=tmp_path,
            step_seconds=0.05,
        )

    def check() -> None:
        assert tables(sweep, 2 * SEEDS) == left_alone

    # Killed while it writes checkpoints, one after each chunk of five steps.
    kill_again_and_again(start, sweep, lambda: _writings(sweep), check, most_seconds=1)
    Script("train", *arguments, folder=tmp_path).succeed()
    check()


def test_told_to_stop(npz: Path, tmp_path: Path, left_alone: dict[str, bytes]) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, "hydra.launcher.workers=1", seeds=SEEDS)
    # Every checkpoint is then one for the signal.
    arguments[arguments.index("engine.checkpoint_minutes=0")] = "engine.checkpoint_minutes=60"
    script = Script("train", *arguments, folder=tmp_path, step_seconds=0.2)
    until((sweep / "0" / "tasks.csv").exists)
    time.sleep(1)
    script.process.send_signal(signal.SIGTERM)
    assert script.wait() == 1
    assert "error: stopped, with checkpoints written" in script.output()
    assert "Traceback" not in script.output()
    assert (sweep / "0" / "checkpoint.pt").exists()
    Script("train", *arguments, folder=tmp_path).succeed()
    assert tables(sweep, 2 * SEEDS) == left_alone


def test_a_grid_that_has_grown(npz: Path, tmp_path: Path, left_alone: dict[str, bytes]) -> None:
    """Two seeds first, then four: job numbers shift, but the runs that are there stay untouched."""
    sweep = tmp_path / "sweep"
    one_process = "hydra.launcher.workers=1"
    Script("train", *sweep_arguments(npz, sweep, one_process, seeds=2), folder=tmp_path).succeed()
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/tasks.csv")}
    assert len(before) == 4
    out = Script("train", *sweep_arguments(npz, sweep, one_process, seeds=SEEDS), folder=tmp_path).succeed()
    assert "8 runs, 4 of them finished before" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # The same runs, if in other folders.
    assert sorted(tables(sweep, 2 * SEEDS).values()) == sorted(left_alone.values())


def test_a_second_process_keeps_out(npz: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, "hydra.launcher.workers=1", seeds=1)
    first = Script("train", *arguments, folder=tmp_path, step_seconds=1)
    until((sweep / "0" / "tasks.csv").exists)
    for script in (
        Script("train", *arguments, folder=tmp_path),
        Script("sweep", "resume", str(sweep), folder=tmp_path),
    ):
        assert script.wait() == 1
        owner = f"process {first.process.pid} on"
        assert re.search(rf"error: \S*sweep is in use by {owner}", script.output()), script.output()
    first.kill_all()


def _writings(sweep: Path) -> int:
    """A number that grows when a checkpoint is written."""
    return max((path.stat().st_mtime_ns for path in sweep.glob("*/checkpoint.pt")), default=0)
