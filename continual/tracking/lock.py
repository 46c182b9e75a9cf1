"""Locks on folders, so that no two processes write to one.

A lock goes with its process, however that ends, and holds on a shared file system of several machines too
(where that supports `flock`, as NFS has since version 4).
"""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from continual.errors import UserError

log = logging.getLogger(__name__)

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class InUseError(UserError):
    """Another process works on this folder."""


class FolderLock:
    """Holds `<folder>/.lock` from `acquire` (or entering a `with`) to `release` or the process's end."""

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.folder, self._patience = folder, patience
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock, waiting for `patience` seconds at most; InUseError if another process keeps it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        until = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    owner = os.read(file, 200).decode(errors="replace").strip()
                    os.close(file)
                    raise InUseError(
                        f"{self.folder} is in use by {owner or 'another process'}; "
                        "wait for that to end, or choose another folder."
                    ) from error
                time.sleep(0.1)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    os.close(file)
                    raise
                log.warning("%s: the file system has no locks; start nothing else here.", self.folder)
                break
        self._file = file
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


_held: dict[Path, FolderLock] = {}


def hold(folder: Path) -> None:
    """Keep this folder to this process until `release_held` or its end; InUseError if another has it."""
    key = folder.absolute()
    if key not in _held:
        lock = FolderLock(folder)
        lock.acquire()
        _held[key] = lock


def release_held() -> None:
    """Let go of what `hold` has kept."""
    while _held:
        _held.popitem()[1].release()


def lock_all(folders: Iterable[Path], patience: float) -> ExitStack:
    """A context in which all these folders are locked; InUseError if one of them cannot be."""
    with ExitStack() as stack:
        # In one order for all processes: two that want some of the same folders do not wait for each other.
        for folder in sorted(folders):
            stack.enter_context(FolderLock(folder, patience))
        return stack.pop_all()
