"""A request to stop reaches the process that it is meant for, whenever it comes, and no later one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.errors import Stopped
from continual.sweep.manifest import Manifest
from continual.sweep.slurm import SlurmLauncher
from continual.sweep.stopping import StopRequests, request_stop
from continual.tracking.lock import FolderLock, holder


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[str]:
    """The name of this process, which has locked the sweep `tmp_path`."""
    with FolderLock(tmp_path):
        name = holder(tmp_path)
        assert name is not None
        yield name


def files(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir())


def test_while_it_trains(tmp_path: Path, owner: str) -> None:
    with StopRequests(tmp_path) as stop:
        request_stop(tmp_path, owner)
        assert stop()
    assert files(tmp_path) == [".lock"]


def test_before_it_trains(tmp_path: Path, owner: str) -> None:
    """The lock is there while configs are frozen: 20 seconds for ten thousand runs."""
    request_stop(tmp_path, owner)
    with StopRequests(tmp_path) as stop:
        assert stop()
    assert files(tmp_path) == [".lock"]


def test_after_the_last_look_at_a_batch_of_a_search(tmp_path: Path, owner: str) -> None:
    with StopRequests(tmp_path):
        request_stop(tmp_path, owner)
    with StopRequests(tmp_path) as stop:
        assert stop()
    with StopRequests(tmp_path) as stop:
        assert not stop()


def test_what_an_earlier_process_was_asked(tmp_path: Path, owner: str) -> None:
    request_stop(tmp_path, "process 1 on another machine")
    with StopRequests(tmp_path) as stop:
        assert not stop()
    assert files(tmp_path) == [".lock"]


def test_before_anything_is_submitted_to_slurm(
    tmp_path: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    request_stop(tmp_path, owner)
    with StopRequests(tmp_path) as stop, pytest.raises(Stopped, match="before its runs were submitted"):
        SlurmLauncher().train([], Manifest.begin(tmp_path), stop)
