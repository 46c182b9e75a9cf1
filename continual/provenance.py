"""Which code and which libraries a result came from."""

import functools
import hashlib
import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import continual

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
# The parts of a checkout that decide what a run does.
_SOURCES = ("continual", "conf")


@dataclass(frozen=True)
class Code:
    """The commit that this package runs from, and a hash of what was changed since; None outside a checkout
    and where nothing was."""

    git_commit: str | None
    git_diff: str | None


def versions() -> dict[str, str]:
    """The versions of Python, torch and this package."""
    import torch  # here, as it takes longer than all else that this module does

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "continual": continual.__version__,
    }


@functools.cache
def code() -> Code:
    """The code as it was when this process first asked."""
    changes = uncommitted_changes()
    digest = hashlib.sha256(changes).hexdigest()[:16] if changes else None
    return Code(git_commit(), digest)


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, or None outside one."""
    # A package that is installed somewhere in another project's checkout is no part of that.
    if not _git("ls-files", "--", Path(__file__).name):
        return None
    commit = _git("rev-parse", "HEAD")
    return commit.decode().strip() if commit else None


@functools.cache
def uncommitted_changes() -> bytes:
    """The package and its configs against the commit, as a diff that `git apply` takes; empty if equal."""
    if git_commit() is None:
        return b""
    top = _PACKAGE.parent
    diff = _git("diff", "--binary", "--no-color", "--no-ext-diff", "HEAD", "--", *_SOURCES, folder=top) or b""
    untracked = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *_SOURCES, folder=top) or b""
    for name in untracked.decode().split("\0"):
        if name:
            # Differing files make git leave with 1.
            diff += _git("diff", "--binary", "--no-index", "/dev/null", name, folder=top, ok=(0, 1)) or b""
    return diff


class Submitted:
    """The code that this process's runs were submitted with, once something has said so."""

    def __init__(self) -> None:
        self._code: Code | None = None

    def expect(self, submitted: Mapping[str, Any], quiet: bool = False) -> None:
        """Runs of this process were submitted with this code; warns, once, if it is not what runs now."""
        before, self._code = self._code, Code(**submitted)
        if self.has_changed and before != self._code and not quiet:
            log.warning(
                "the code was edited since these runs were submitted (then %s, now %s); "
                "their summary.json files say so too.",
                _describe(self._code),
                _describe(code()),
            )

    @property
    def has_changed(self) -> bool:
        """Whether the code that runs is not what was submitted."""
        return self._code is not None and self._code != code()

    def record(self) -> dict[str, Any]:
        """What a run's summary says of its code."""
        found: dict[str, Any] = asdict(code())
        if self._code is not None and self.has_changed:
            found |= {"code_changed": True, "submitted_code": asdict(self._code)}
        return found


submitted = Submitted()


def _describe(one: Code) -> str:
    commit = one.git_commit[:10] if one.git_commit else "no commit"
    return f"{commit} with changes {one.git_diff}" if one.git_diff else commit


def _git(*arguments: str, folder: Path = _PACKAGE, ok: tuple[int, ...] = (0,)) -> bytes | None:
    """What git prints, or None if there is no git or it fails."""
    try:
        found = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout if found.returncode in ok else None
