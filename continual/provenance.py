"""Which code and which libraries a result came from."""

import functools
import platform
import subprocess
from pathlib import Path

import torch

import continual


def versions() -> dict[str, str]:
    """The versions of Python, torch and this package."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "continual": continual.__version__,
    }


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, or None outside one."""
    try:
        found = subprocess.run(
            ["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
