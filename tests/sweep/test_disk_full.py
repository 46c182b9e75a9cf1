"""A disk that is full: a clear message, and the last good checkpoint stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual import training
from continual.tracking.run_folder import StorageError
from tests import tiny


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
    assert training.position(run) == (0, 10)
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


def _fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return path
    raise AssertionError("the disk has no end")
