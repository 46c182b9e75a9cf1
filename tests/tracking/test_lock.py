import os
import subprocess
import sys
from pathlib import Path

import pytest

from continual.errors import UserError
from continual.tracking.lock import FolderLock, InUseError, holder, lock_all
from continual.tracking.storage import StorageError

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


def test_who_holds_it_is_known_and_looking_takes_nothing(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert not (tmp_path / ".lock").exists()
    with FolderLock(tmp_path):
        assert str(holder(tmp_path)).startswith(f"process {os.getpid()} on ")
    assert holder(tmp_path) is None
    with FolderLock(tmp_path):
        pass


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o644), (0o775, 0o664), (0o777, 0o666)])
def test_whoever_may_write_to_the_folder_may_lock_it(
    tmp_path: Path, folder_mode: int, file_mode: int
) -> None:
    """Whatever the umask of the first one is."""
    tmp_path.chmod(folder_mode)
    before = os.umask(0o077)
    try:
        with FolderLock(tmp_path):
            assert (tmp_path / ".lock").stat().st_mode & 0o777 == file_mode
    finally:
        os.umask(before)


def test_a_lock_that_can_only_be_read_still_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FolderLock(tmp_path):
        pass
    really = os.open

    def of_another_user(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", of_another_user)
    with FolderLock(tmp_path), pytest.raises(InUseError):
        FolderLock(tmp_path).acquire()


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"\.lock cannot be opened \(Permission denied\): .* ask its owner"):
        FolderLock(tmp_path).acquire()


def test_no_room_for_a_lock_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StorageError, match=r"\.lock cannot be written \(No space left .*\); make room"):
        FolderLock(tmp_path).acquire()


def test_no_room_for_its_text_hinders_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with FolderLock(tmp_path), pytest.raises(InUseError, match="in use by another process"):
        FolderLock(tmp_path).acquire()


def test_more_folders_than_files_may_be_open(tmp_path: Path) -> None:
    program = f"""
import pathlib, resource
from continual.tracking.lock import lock_all
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
with lock_all([pathlib.Path({str(tmp_path)!r}, str(i)) for i in range(100)], patience=0):
    print("locked")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "locked\n", done.stderr
