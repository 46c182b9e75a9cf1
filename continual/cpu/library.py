"""The native code, built once for this processor and kept on the disk."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from continual.cpu.errors import Unavailable
from continual.machine import compile_cache, processor

_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC")
_SECONDS_TO_BUILD = 300


@functools.cache
def library() -> ctypes.CDLL:
    """The native code, loaded; built before where that was never done. Unavailable if it cannot be."""
    compiler = os.environ.get("CXX", "g++")
    tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [*shlex.split(compiler), *_FLAGS, tuned]
    try:
        folder = _folder()
        path = folder / f"replay-{_key(command)}.so"
        if not path.exists():
            with FileLock(path.with_suffix(".lock"), timeout=_SECONDS_TO_BUILD):
                if not path.exists():
                    _build(command, path)
        loaded = ctypes.CDLL(str(path))
    except (OSError, TimeoutError, subprocess.SubprocessError) as error:
        raise Unavailable(f"its native code cannot be built ({_reason(error)})") from error
    for name in ("lanes", "most_arguments", "replay", "multiply_adds", "one_product"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded


def _folder() -> Path:
    """Beside the code that torch.compile keeps."""
    folder = Path(compile_cache()) / "continual"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(command: list[str]) -> str:
    """A name for all that the built code depends on: sources, flags, compiler and processor."""
    told = subprocess.run(
        [*command, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, check=True
    )
    parts = [*command, told.stdout, processor()]
    parts += [path.read_text() for path in sorted(_SOURCES.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(command: list[str], path: Path) -> None:
    """Compile into a file of its own, which then takes its place as a whole."""
    handle, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    built = Path(name)
    try:
        subprocess.run(
            [*command, str(_SOURCES / "replay.cpp"), "-o", name],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS_TO_BUILD,
        )
        built.replace(path)
    finally:
        built.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    lines = [line for line in said.splitlines() if "error" in line] or said.strip().splitlines()
    return lines[0] if lines else type(error).__name__
