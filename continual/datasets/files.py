"""A dataset's files: where they are searched, how they are read, verified and fetched.

Whatever goes wrong becomes a DataError of one sentence that names the file or folder and a way out.
"""

import gzip
import hashlib
import http.client
import os
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.errors import DataError

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
                f"{self._listed(missing)}: {_POINT_ELSEWHERE} {Path(self.folder).parts[0]}/, "
                f"or {otherwise}."
            )

    def _missing(self) -> list[str]:
        return [name for name in self.names if not self._is_there(self.path(name))]

    def _is_there(self, path: Path) -> bool:
        return os.path.isfile(path) or (self.gz and os.path.isfile(f"{path}.gz"))

    def _listed(self, names: Sequence[str]) -> str:
        shown = names if len(names) <= 6 else [*names[:3], f"{len(names) - 3} more"]
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
                f"{_POINT_ELSEWHERE} {Path(self.folder).parts[0]}/."
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


def read_bytes(path: Path) -> bytes:
    """The content of a file, or, if only `<path>.gz` is there, what that unpacks to.

    Raises:
        DataError: if the file cannot be read or unpacked.
    """
    compressed = path.with_name(f"{path.name}.gz")
    try:
        if path.exists() or not compressed.exists():
            return path.read_bytes()
        return gzip.decompress(compressed.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(compressed, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def verify_md5(path: Path, content: bytes, md5: str) -> None:
    """Compare a file's content with the checksum of the official file.

    Raises:
        DataError: if they differ.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is damaged (its MD5 is {found}, the official file's {md5}): replace it, "
            "or set env.dataset.verify=false if it is meant to differ."
        )


def damaged(path: Path, why: str) -> DataError:
    """The error for a file that does not have the form it should have."""
    return DataError(f"{path} is damaged or not what it should be ({why}): replace it.")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not let us read."""
    return DataError(f"{path} cannot be read: {error.strerror or error}.")
