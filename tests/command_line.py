"""The command line in this process: what it prints, its exit code and what it writes."""

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from continual.cli import entry

# A run that takes a blink, of 2 tasks with 20 steps each.
TINY = (
    "device=cpu",
    "wandb.mode=disabled",
    "engine.compile=false",
    "network.hidden_sizes=[9,9]",
    "env/dataset=npz",
    "env.num_tasks=2",
    "env.steps_per_task=20",
    "env.batch_size=7",
    "env.samples_per_task=40",
)


@dataclass(frozen=True)
class Finished:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one sentence that was said of a user's mistake."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        assert line.endswith((".", "?"))
        assert self.code in (1, 2)
        assert self.out == ""
        return line.removeprefix("error: ")


CommandLine = Callable[..., Finished]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, and surroundings that a call may change."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CONTINUAL_DATA_DIR", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "1"))
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    return folder


@pytest.fixture
def cli(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """`cli(*arguments)` is what `python scripts/train.py` does with these arguments, in `workplace`."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(*arguments: str) -> Finished:
        monkeypatch.setattr("sys.argv", ["train.py", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            entry.main()
        except SystemExit as end:
            code = end.code
        except Exception:  # what Python makes of it at the end of a process
            traceback.print_exc()
            code = 1
        finally:
            # Hydra lets the root logger write to the stream that is captured now, and to a file.
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
        out, err = capsys.readouterr()
        if isinstance(code, str):  # sys.exit prints it when the process ends
            code, err = 1, f"{err}{code}\n"
        assert isinstance(code, int)
        return Finished(code, out, err)

    return call


@pytest.fixture
def train(cli: CommandLine, npz: Path) -> CommandLine:
    """`train(*arguments)` is `cli` for runs with `TINY` settings."""

    def call(*arguments: str) -> Finished:
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        return cli(*flags, *TINY, f"env.dataset.path={npz}", *overrides)

    return call


def everything_in(folder: Path) -> set[str]:
    """The names of all files and folders in and below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def written(folder: Path) -> dict[Path, int]:
    """When each file below the folders of a sweep's jobs was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/**/*")}
