import subprocess
import sys
from pathlib import Path

import pytest

from continual.tracking.lock import FolderLock, InUseError, hold, lock_all, release_held

_TAKE = "import sys, pathlib; from continual.tracking.lock import *; FolderLock(pathlib.Path(sys.argv[1]))"


def take_elsewhere(folder: Path) -> str:
    """What another process says that takes the lock."""
    command = [sys.executable, "-c", f"{_TAKE}.acquire()", str(folder)]
    return subprocess.run(command, capture_output=True, text=True).stderr


def test_only_one_process_has_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        assert f"InUseError: {tmp_path} is in use by process" in take_elsewhere(tmp_path)
    assert take_elsewhere(tmp_path) == ""


def test_it_goes_with_its_process(tmp_path: Path) -> None:
    take_elsewhere(tmp_path)
    with FolderLock(tmp_path):
        pass


def test_all_or_none(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    with FolderLock(folders[1]), pytest.raises(InUseError, match="b is in use by process"):
        lock_all(folders, patience=0.2)
    with lock_all(folders, patience=0), pytest.raises(InUseError):
        FolderLock(folders[2]).acquire()
    for folder in folders:
        FolderLock(folder).acquire()


def test_what_is_held_is_held_once(tmp_path: Path) -> None:
    hold(tmp_path)
    hold(tmp_path)
    with pytest.raises(InUseError):
        FolderLock(tmp_path).acquire()
    release_held()
    with FolderLock(tmp_path):
        pass
