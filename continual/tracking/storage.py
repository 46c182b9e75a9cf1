"""Writing files so that each is whole or not there, and saying in one sentence where that is impossible."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from continual.errors import UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(UserError):
    """A file of a run or a sweep cannot be written."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that under its name there is always the one before or the whole of this one."""
    fresh = write_beside(path, content)
    with saying_what_was_lost(path):
        os.replace(fresh, path)


def write_beside(path: Path, content: bytes) -> Path:
    """Write and sync `<name>.tmp`; without the sync, a crash could leave the new name on an empty file."""
    fresh = path.with_name(path.name + ".tmp")
    with saying_what_was_lost(path):
        try:
            with open(fresh, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
    return fresh


def sync(path: Path) -> None:
    """Have what was appended to this file, if there is one, on the disk before what is written next."""
    with saying_what_was_lost(path), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there; StorageError if that is impossible."""
    with saying_what_was_lost(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def saying_what_was_lost(path: Path) -> Iterator[None]:
    """A file that cannot be written is the user's to mend: a full disk, a quota, a lost mount."""
    try:
        yield
    except OSError as error:
        mend = "make room" if error.errno in _NO_ROOM else "mend that"
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}); "
            f"{mend} and start the same command again: it resumes from the last checkpoint."
        ) from error
