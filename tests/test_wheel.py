"""The wheel: what it holds, and that it works outside the clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.command_line import TINY

CLONE = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CLONE, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and its scripts, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_whole_package_and_every_config(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (CLONE / "continual").rglob("*.*") if path.is_file()]
    package = {str(path.relative_to(CLONE)) for path in files if path.suffix != ".pyc"}
    configs = {f"continual/{path.relative_to(CLONE)}" for path in (CLONE / "conf").rglob("*.yaml")}
    assert package <= names
    assert configs <= names
    assert not any(name.startswith(("tests/", "scripts/", "outputs/")) for name in names)


def test_it_trains_outside_the_clone(installed: Path, npz: Path, tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(installed)}
    command = [str(installed / "bin" / "continual-train"), "-m", "hydra.sweep.dir=sweep", "seed=0,1"]
    command += ["agent=l2_init", "hydra.launcher.workers=1", *TINY, f"env.dataset.path={npz}"]
    finished = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for number in "01":
        assert (tmp_path / "sweep" / number / "tasks.csv").read_text().count("\n") == 3
    hydra = yaml.safe_load((tmp_path / "sweep" / "0" / ".hydra" / "hydra.yaml").read_text())["hydra"]
    sources = {source["provider"]: source["path"] for source in hydra["runtime"]["config_sources"]}
    assert sources["main"] == str(installed / "continual" / "conf")


def test_it_reports_outside_the_clone(installed: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(installed)}
    command = [str(installed / "bin" / "continual-report"), "--help"]
    finished = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "usage" in finished.stdout


def test_it_plans_a_reproduction_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(installed)}
    command = [str(installed / "bin" / "continual-reproduce"), "problem=random_label_digits"]
    command += ["agents=[base,l2_init]", "num_tasks=2", "dry_run=true"]
    finished = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "50 runs, 0 of them finished" in finished.stdout
