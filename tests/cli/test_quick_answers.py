"""What nothing is trained for answers without loading what training needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import TINY

ROOT = Path(__file__).parents[2]
# Of what these take to import, torch alone takes a second, and building loads the rest of the engine.
TRAINING = {"continual.building", "continual.training", "scipy", "torch._dynamo", "torchvision", "wandb"}
LARGE = TRAINING | {"matplotlib", "pandas", "sklearn", "submitit", "torch"}
# A process that has run a script ends without its exit handlers: what was imported is said just before.
PROGRAM = """
import runpy, sys
from continual.sweep import leaving
names = set(sys.argv[1].split(","))
script, sys.argv = sys.argv[2], sys.argv[2:]
code = None
def leave(status=0):
    raise SystemExit(status)
leaving.leave = leave
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    code = end.code
print("imported", code or 0, *sorted(names & set(sys.modules)))
"""


def answer(folder: Path, names: set[str], script: str, *arguments: str) -> tuple[str, str]:
    """What a script prints, but for the last line: its exit code and which of these modules it imported."""
    command = [sys.executable, "-c", PROGRAM, ",".join(names), str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    said, _, imported = done.stdout.rstrip("\n").rpartition("\n")
    return said + done.stderr, imported


@pytest.fixture(scope="module")
def finished(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a finished run, `run`, and sweep, `sweep`; what both have as arguments."""
    folder = tmp_path_factory.mktemp("finished")
    overrides = [*TINY, f"env.dataset.path={npz}"]
    sweep = ["-m", *overrides, "seed=0,1", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1"]
    for command in ([*overrides, "hydra.run.dir=run"], sweep):
        answer(folder, set(), "train.py", *command)
    return folder, overrides


@pytest.mark.parametrize("script", ["train.py", "sweep.py", "report.py"])
def test_help(tmp_path: Path, script: str) -> None:
    said, imported = answer(tmp_path, LARGE, script, "--help")
    assert imported == "imported 0"
    assert "agent: base" in said or "usage" in said


def test_the_help_of_a_reproduction(tmp_path: Path) -> None:
    said, imported = answer(tmp_path, LARGE - {"pandas"}, "reproduce.py", "--help")
    assert imported == "imported 0"
    assert "usage" in said


def test_a_status(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    said, imported = answer(folder, LARGE | {"hydra"}, "sweep.py", "status", "sweep")
    assert imported == "imported 0"
    assert "completed" in said


def test_a_finished_run(finished: tuple[Path, list[str]]) -> None:
    folder, overrides = finished
    said, imported = answer(folder, LARGE, "train.py", *overrides, "hydra.run.dir=run")
    assert imported == "imported 0"
    assert "holds this run, finished" in said


def test_what_is_refused_is_refused_for_a_finished_run(finished: tuple[Path, list[str]]) -> None:
    folder, overrides = finished
    said, imported = answer(
        folder, LARGE, "train.py", *overrides, "hydra.run.dir=run", "hydra.job.chdir=true"
    )
    assert imported == "imported 1"
    assert "hydra.job.chdir: the paths of a config start" in said


def test_a_finished_run_in_other_words(finished: tuple[Path, list[str]]) -> None:
    """Whether its config is the same is for the classes that it names to say, and they are PyTorch's."""
    folder, overrides = finished
    other = [*overrides, "optimizer.lr=0.0010", "notes=again", "hydra.run.dir=run"]
    said, imported = answer(folder, TRAINING | {"pandas"}, "train.py", *other)
    assert imported == "imported 0"
    assert "holds this run, finished" in said


def test_a_finished_sweep(finished: tuple[Path, list[str]]) -> None:
    folder, overrides = finished
    arguments = ["-m", *overrides, "seed=0,1", "hydra.sweep.dir=sweep"]
    said, imported = answer(folder, TRAINING, "train.py", *arguments)
    assert imported == "imported 0"
    assert "2 of 2 runs finished" in said
