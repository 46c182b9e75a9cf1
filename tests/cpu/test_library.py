"""The native code: built once, by one of several processes, or not at all and said so."""

import stat
import subprocess
import sys

import pytest

from continual.cpu import Unavailable
from continual.cpu.library import library

COMPILER = """#!/bin/sh
case "$*" in
*-dumpversion*) echo 12 ;;
*) echo one >> {log}; sleep 0.5; for last; do :; done; cp {library} "$last" ;;
esac
"""


@pytest.fixture
def built(monkeypatch, tmp_path):
    """The path of a library that was built, and a compiler that only copies it, with a folder of its own."""
    path = library()._name
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(log=tmp_path / "log", library=path))
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_several_processes_build_it_once(built):
    command = [sys.executable, "-c", "from continual.cpu.library import library; print(library().lanes())"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0] for process in processes]
    assert len({*said}) == 1
    assert int(said[0]) in (4, 8, 16)
    assert (built / "log").read_text() == "one\n"
    assert len([*(built / "cache").rglob("*.so")]) == 1


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$#" -gt 9 ] && { echo "x.h: error: no such thing" >&2; exit 1; }\necho 4\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(Unavailable, match=r"native code cannot be built .*no such thing"):
        library.__wrapped__()


@pytest.mark.parametrize("variable", ["CXX", "TORCHINDUCTOR_CACHE_DIR"])
def test_what_is_missing_is_named(monkeypatch, tmp_path, variable):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, "/dev/null/nothing")
    with pytest.raises(Unavailable, match="native code cannot be built"):
        library.__wrapped__()
