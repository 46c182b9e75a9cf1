"""What the documents say works: every command in them is run, one after another, as a reader would.

Only sizes are added to a command: two tiny tasks in the place of five hundred. Runs of SLURM's train here.
"""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from continual import metrics
from continual.cli import entry
from continual.cli.composing import Composer
from continual.cli.plain import plain
from continual.cli.sweep_command import main as sweep
from continual.report import main as report
from continual.reproduce.app import main as reproduce
from continual.sweep import launcher
from tests.datasets.writers import random_arrays, write_mnist, write_npz

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
STUDIES = sorted((ROOT / "docs" / "results").glob("*/README.md"))
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *STUDIES]
SMALL = ("env.num_tasks=2", "env.steps_per_task=3", "engine.compile=false")
SMALL_SWEEP = (*SMALL, "hydra.launcher.workers=1")


def commands(document: Path) -> list[str]:
    """The document's command lines, in code blocks of either kind, without their comments."""
    text = re.sub(r"\\\n +", "", document.read_text(encoding="utf-8"))
    in_fences = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    indented = "\n".join(
        re.findall(r"^    (\S.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    )
    lines = [re.sub(r"\s+#.*$", "", line) for line in f"{in_fences}\n{indented}".splitlines()]
    return [line for line in lines if re.match(r"([A-Z_]+=\S+ )*(python|bash) ", line)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the place of MNIST and Fashion-MNIST: as much, and one image more, as it is not theirs."""
    folder = tmp_path_factory.mktemp("data")
    arrays = random_arrays(60_001, 9_000, (1, 28, 28), 10)
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(folder, *arrays, name)
    return folder


@pytest.fixture
def reader(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a reader of the documents works, with the data and files that these name."""
    monkeypatch.setenv("CONTINUAL_DATA_DIR", str(data))
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_npz(tmp_path / "mine.npz", *random_arrays(1300, 40, (1, 6, 6), 10))
    for document in (README, ROOT / "docs" / "extending.md"):
        for name, content in files_of(document):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    return tmp_path


def files_of(document: Path) -> list[tuple[str, str]]:
    """Names and contents of the files that a document has the reader write: blocks after their name."""
    text = document.read_text(encoding="utf-8")
    return re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_command_runs(document: Path, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(document):
        words = shlex.split(command)
        while re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)  # as `reader` has set it
        _, script, *arguments = words
        assert (ROOT / script).is_file(), command
        if script.endswith(".py"):
            status = RUN[Path(script).name](arguments, monkeypatch)
            assert not status, f"{command}: {status}"
    if document in STUDIES:  # it was drawn again from its own files
        drawn = pd.read_csv(reader / "report" / "report.csv")
        told = document.read_text(encoding="utf-8").count(": diverges")
        assert drawn["diverged"].gt(0).sum() == told
        drawn = drawn[drawn["diverged"] == 0]
        assert (drawn["n"] > 0).all()
        assert drawn["score"].notna().all()
        assert (reader / "report" / "report.html").stat().st_size > 100_000


def _train(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    if "--help" in arguments:
        return None
    given = {word.partition("=")[0] for word in arguments}
    added = [*(SMALL_SWEEP if "-m" in arguments else SMALL)]
    replaced = tuple(word.partition("=")[0] for word in SMALL_SWEEP)
    arguments = [word for word in arguments if not word.startswith(replaced)]
    if "hydra/launcher=slurm" in arguments:
        config = Composer().swept([word for word in arguments if word != "-m"])
        launcher.make(plain(config.hydra.launcher), "hydra.launcher")  # its keys are the launcher's
        arguments = [word for word in arguments if not word.startswith(("hydra/launcher", "hydra.launcher"))]
    if "hydra/sweeper=optuna" in arguments:
        added += ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
        arguments = [word for word in arguments if not word.startswith("hydra.sweeper.n_")]
    if any(word.startswith("sweep=") for word in arguments) and "seed" not in given:
        added.append("seed=0")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *added])
    try:
        entry.main()
    except SystemExit as end:
        # All has been composed and checked when data are looked for that a test cannot make.
        return None if isinstance(end.code, str) and "was not found" in end.code else end.code
    return None


def _reproduce(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    return reproduce([*arguments, "dry_run=true"])


def _benchmark(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    script = ROOT / "scripts" / "benchmark.py"
    done = subprocess.run([sys.executable, script, *arguments, "--quick"], capture_output=True, text=True)
    return done.returncode and done.stderr


def _with_studies(arguments: list[str]) -> list[str]:
    """The arguments, with a study that the documents name where it is; its report goes to the reader."""
    named = [str(ROOT / word) if word.startswith("docs/results/") else word for word in arguments]
    return named if named == arguments else [*named, "--output", "report"]


RUN: dict[str, Callable[[list[str], pytest.MonkeyPatch], object]] = {
    "train.py": _train,
    "benchmark.py": _benchmark,
    "reproduce.py": _reproduce,
    "report.py": lambda arguments, _: report(_with_studies(arguments)),
    "sweep.py": lambda arguments, _: sweep(arguments),
}


def test_the_agent_of_the_readme_trains_as_one_population(reader: Path) -> None:
    """Its numbers do what it says: more noise moves the weights further."""
    import continual

    runs = continual.train(
        *("agent=noise", "agent.scale=1e-5,1e-2", "env.num_tasks=1", "env.steps_per_task=20"),
        *("engine.compile=false", "wandb.mode=disabled"),
        folder=reader / "noise",
        workers=1,
        config_dir=reader / "my_conf",
    )
    little, much = runs.tasks["distance_from_init"]
    assert much > 2 * little
    assert {
        json.loads((reader / "noise" / run / "summary.json").read_text())["replicas"] for run in "01"
    } == {2}


def test_the_notebook_runs(reader: Path) -> None:
    """The tutorial, from its first cell to its last, in the time that it says."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    assert all(not cell.get("outputs") or cell.execution_count for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(reader)}}).execute()
    (own,) = [cell for cell in notebook.cells if cell.source == "runs.figure()"]
    assert "image/png" in own.outputs[-1]["data"]


def test_the_quickstart_runs() -> None:
    """In a clone that is set up; the setting up itself is what CI does first."""
    if not (ROOT / ".venv" / "installed-by-setup").exists() or (ROOT / ".venv").is_symlink():
        pytest.skip("this clone has no .venv of its own: bash scripts/setup.sh makes it")
    command = ["bash", ROOT / "scripts" / "quickstart.sh", *SMALL_SWEEP, "wandb.mode=disabled"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "l2_init" in done.stdout


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--quiet",
        ROOT / "docs",
        tmp_path / "site",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("methods/l2_init", "problems/permuted_mnist", "datasets/npz"):
        assert (tmp_path / "site" / "reference" / f"{option}.html").is_file()
    measures = {
        name
        for name, function in inspect.getmembers(metrics, inspect.isfunction)
        if function.__module__ == metrics.__name__ and not name.startswith("_")
    }
    pages = {path.stem for path in (tmp_path / "site" / "reference" / "measures").glob("*.html")}
    assert pages == measures - {"singular_values", "plasticity"}  # parts, and what puts them together
