"""The folders that results go to: which of them will do, and new ones that no other process has."""

import errno
import os
import tempfile
from pathlib import Path

from continual.errors import ConfigError


def check_writable(folder: Path, setting: str = "hydra.run.dir or, for a sweep, hydra.sweep.dir") -> None:
    """ConfigError if this folder, which need not be there yet, cannot be made or written to.

    `setting` is what names another one.
    """
    existing = folder
    try:
        while not _exists(existing):
            if existing.is_symlink():
                raise OSError(errno.ENOENT, "a link to a folder that is not there")
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):  # has no name, so that nothing is seen of it
            pass
        longest = os.pathconf(existing, "PC_NAME_MAX")
        if any(len(os.fsencode(name)) > longest for name in folder.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"the output folder {folder} cannot be written ({reason}: {existing}); "
            f"choose another with {setting}."
        ) from error


def free_name(folder: Path) -> Path:
    """This folder or, if there is one already, the first of `<folder>-2`, `-3`, ... that is not there."""
    name, number = folder, 1
    while os.path.lexists(name):
        number += 1
        name = folder.with_name(f"{folder.name}-{number}")
    return name


def make_new(folder: Path) -> bool:
    """Make this folder; False if there is one by now, which is then another process's."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"the output folder {folder} cannot be made ({error.strerror}).") from error
    return True


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder; OSError if we may not know."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
