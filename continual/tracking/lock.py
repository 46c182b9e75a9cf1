"""Locks on folders, so that no two processes write to one.

A lock goes with its process, however that ends, and holds on a shared file system of several machines too
(where that supports `flock`, as NFS has since version 4). The file says who holds the lock.

This is not `filelock` (4.3): its lock on a file does not say who holds it, and where a file system has no
`flock` it either fails or leaves a marker that outlives a killed process.
"""

import contextlib
import errno
import fcntl
import logging
import os
import resource
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from continual.errors import UserError
from continual.tracking.storage import make_folder, saying_what_was_lost

log = logging.getLogger(__name__)

_NAME = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# Whoever asks for the holder has the lock for a moment, so every try lasts longer than that.
_LEAST_PATIENCE = 0.2
_SECONDS_BETWEEN_TRIES = 0.05
_OTHER_FILES = 1024  # that a process may have open besides: data, libraries, a GPU's


class InUseError(UserError):
    """Another process works on this folder."""


class FolderLock:
    """Holds `<folder>/.lock` from `acquire` (or entering a `with`) to `release` or the process's end."""

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.folder, self._patience = folder, max(patience, _LEAST_PATIENCE)
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock, waiting for `patience` seconds at most.

        Raises InUseError if another process keeps it, UserError if the lock's file is another user's who lets
        nobody else open it, StorageError if the folder or the file cannot be made.
        """
        make_folder(self.folder)
        file = _opened(self.folder)
        until = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    owner = _owner(file)
                    os.close(file)
                    raise InUseError(
                        f"{self.folder} is in use by {owner}; wait for that to end, or choose another folder."
                    ) from error
                time.sleep(_SECONDS_BETWEEN_TRIES)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    os.close(file)
                    raise _cannot_open(self.folder, error) from error
                log.warning("%s: the file system has no locks; start nothing else here.", self.folder)
                break
        self._file = file
        # On a full disk, or in another user's file that may only be read, the lock holds without its text.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let others take the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def holder(folder: Path) -> str | None:
    """Who holds this folder's lock ("process 12 on host"), or None if nobody does; nothing is written."""
    try:
        file = os.open(folder / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def lock_all(folders: Iterable[Path], patience: float) -> ExitStack:
    """A context in which all these folders are locked; InUseError if one of them cannot be."""
    # In one order for all processes: two that want some of the same folders do not wait for each other.
    ordered = sorted(folders)
    _allow_open_files(len(ordered) + _OTHER_FILES)
    with ExitStack() as stack:
        for folder in ordered:
            stack.enter_context(FolderLock(folder, patience))
        return stack.pop_all()


def _allow_open_files(number: int) -> None:
    """Have this process allowed so many open files, as far as the system lets it: 1024 is usual before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _opened(folder: Path) -> int:
    """The lock's file, made if it is not there, for everybody who may write to the folder."""
    path = folder / _NAME
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            with saying_what_was_lost(path):
                raise
        try:  # another user's: that it can be read is enough to lock it
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise _cannot_open(folder, error) from error
    # Whatever the umask: who may make files in the folder may lock it. Of another user's file it is refused.
    with contextlib.suppress(OSError):
        os.fchmod(file, 0o600 | os.stat(folder).st_mode & 0o066)
    return file


def _owner(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"


def _cannot_open(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder / _NAME} cannot be opened ({error.strerror}): it is another user's, or you may not write "
        "there; ask its owner to remove it when nothing trains there, or choose another folder."
    )
