"""A dataset's files: where they are searched, how they are read, verified and fetched.

Whatever goes wrong becomes a DataError of one sentence that names the file or folder and a way out.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from continual.errors import DataError

T = TypeVar("T")

Download = Callable[[Path], object]
"""Fetches a dataset into a folder that stands for the data folder."""

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

# What urllib, torchvision's checks and the unpacking of archives raise when a download goes wrong.
_DOWNLOAD_ERRORS = (
    OSError,
    RuntimeError,
    http.client.HTTPException,
    tarfile.TarError,
    EOFError,
    zlib.error,
)

# Where it is noted which files are read.
_NOTED: list[set[Path]] = []

_POINT_ELSEWHERE = "point CONTINUAL_DATA_DIR or data_dir=... to the folder that holds"


@dataclass(frozen=True)
class DatasetFiles:
    """The files `<data_dir>/<folder>/<name>` that make up a dataset."""

    title: str  # the dataset's name in messages
    data_dir: Path
    folder: str
    names: Sequence[str]
    gz: bool = False  # whether <name>.gz serves in place of <name>
    source: str = ""  # where to get files that cannot be downloaded

    @property
    def root(self) -> Path:
        """The data folder's absolute path."""
        return Path(os.path.abspath(os.path.expanduser(self.data_dir)))

    def path(self, name: str) -> Path:
        """The absolute path of one of the files."""
        return self.root / self.folder / name

    def require(self, download: Download | None = None) -> None:
        """Make sure that all files are there, with `download` (if given) where some are not.

        Raises:
            DataError: if files are missing (after the download), or if it fails.
        """
        missing = self._missing()
        if missing and download is not None:
            self._fetch(download)
            missing = self._missing()
        if missing:
            otherwise = (
                f"get the files from {self.source}"
                if self.source
                else "let env.dataset.download=true fetch the files"
            )
            raise DataError(
                f"{self.title} was not found, since {self.root / self.folder} lacks "
                f"{self._listed(missing)}{self._found()}: {_POINT_ELSEWHERE} {self._first_part()}, "
                f"or {otherwise}."
            )

    def _first_part(self) -> str:
        """What lies directly in the data folder: a folder or the files themselves."""
        parts = Path(self.folder).parts
        return f"{parts[0]}/" if parts else self._listed(self.names)

    def _found(self) -> str:
        """What the folder holds in place of the files, so that a wrong name or folder is seen at once."""
        try:
            found = sorted(entry.name for entry in os.scandir(self.root / self.folder))
        except OSError:
            return ""
        return f" (it holds {', '.join(found[:6])}{', ...' if len(found) > 6 else ''})" if found else ""

    def _missing(self) -> list[str]:
        return [name for name in self.names if not self._is_there(self.path(name))]

    def _is_there(self, path: Path) -> bool:
        return os.path.isfile(path) or (self.gz and os.path.isfile(f"{path}.gz"))

    def _listed(self, names: Sequence[str]) -> str:
        shown = names if len(names) <= 8 else [*names[:3], f"{len(names) - 3} more"]
        listed = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
        return f"{listed} (as such or as .gz)" if self.gz else listed

    def _fetch(self, download: Download) -> None:
        """Download beside the data, then move file by file, so that none is ever there in part."""
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as fetched:
                download(Path(fetched))
                for file in sorted(Path(fetched).rglob("*")):
                    if file.is_file():
                        target = self.root / file.relative_to(fetched)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(file, target)
        except _DOWNLOAD_ERRORS as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"{self.title} could not be downloaded ({reason[-1]}): put "
                f"{self._listed(self.names)} into {self.root / self.folder}, or "
                f"{_POINT_ELSEWHERE} {self._first_part()}."
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


@contextlib.contextmanager
def noting_what_is_read() -> Iterator[set[Path]]:
    """The files that are read meanwhile, by any thread, whether or not they can be."""
    noted: set[Path] = set()
    _NOTED.append(noted)
    try:
        yield noted
    finally:
        _NOTED[:] = [one for one in _NOTED if one is not noted]


def note(path: Path) -> None:
    """To be called of each file that is read in another way than by `read`; see `noting_what_is_read`."""
    for noted in _NOTED:
        noted.add(path)


def read(path: Path, parse: Callable[[Path], T]) -> T:
    """What `parse` makes of a file; whatever it raises means that the file is damaged.

    Raises:
        DataError: if the file cannot be read or parsed.
    """
    note(path)
    try:
        return parse(path)
    except Exception as error:  # what a damaged file raises is not defined
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise damaged(path, _reason(error)) from error


def read_or_unpack(path: Path, parse: Callable[[Path], T]) -> T:
    """What `parse` makes of a file or, where that is absent or damaged, of what `<path>.gz` unpacks to.

    Raises:
        DataError: if neither can be read; it names the file if there is one, else the .gz.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file():
        return read(packed, lambda packed: _unpack(packed, parse))
    try:
        return read(path, parse)
    except DataError:
        if packed.is_file():
            with contextlib.suppress(DataError):  # the file itself is then the one to name
                return read(packed, lambda packed: _unpack(packed, parse))
        raise


def _unpack(packed: Path, parse: Callable[[Path], T]) -> T:
    with gzip.open(packed) as stream, tempfile.NamedTemporaryFile(suffix=f"-{packed.stem}") as unpacked:
        shutil.copyfileobj(stream, unpacked)
        unpacked.flush()
        return parse(Path(unpacked.name))


def check_md5(file: Path, md5: str) -> None:
    """ValueError if a file does not have the checksum of the official file."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise ValueError(
            f"its MD5 is {found}, the official file's {md5}; env.dataset.verify=false reads other files"
        )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else f"reading it fails with {type(error).__name__}"


def damaged(path: Path, why: str) -> DataError:
    """The error for a file that does not have the form it should have."""
    return DataError(f"{path} is damaged or not what it should be ({why}): replace it.")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not let us read."""
    return DataError(f"{path} cannot be read: {error.strerror or error}.")
