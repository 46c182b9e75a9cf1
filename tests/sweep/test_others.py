"""Runs and folders that another process holds: waited for or refused, and never written to."""

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from continual.cli import output
from continual.sweep import cli, others
from continual.sweep.manifest import Manifest
from continual.tracking.lock import FolderLock, holder
from tests.command_line import CommandLine, everything_in, written
from tests.sweep.subprocesses import Script, sweep_arguments, until

IN_SWEEP = ("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", "seed=0,1")


def test_a_run_that_is_held_is_waited_for(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a worker whose launcher was killed, which ends after its chunk."""
    lock = FolderLock(workplace / "sweep" / "1")
    lock.acquire()
    before = written(workplace / "sweep")
    seen = []
    said: list[str] = []
    monkeypatch.setattr(others.log, "warning", lambda text, *of: said.append(text % of))

    def let_go() -> None:
        until(lambda: said)
        time.sleep(1)
        seen.append(written(workplace / "sweep")[workplace / "sweep" / "1" / ".lock"])
        assert not (workplace / "sweep" / "1" / "summary.json").exists()
        lock.release()

    thread = threading.Thread(target=let_go)
    thread.start()
    finished = train(*IN_SWEEP)
    thread.join()
    assert finished.code == 0, finished.err
    assert seen == list(before.values())
    assert (workplace / "sweep" / "1" / "summary.json").exists()
    (waiting,) = said
    assert waiting.startswith("waiting for process ")
    assert waiting.endswith("which trains sweep/1.")


def test_a_run_that_stays_held_is_refused_and_not_called_failed(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "_MOST_SECONDS", 0.5)
    with FolderLock(workplace / "sweep" / "1"):
        finished = train(*IN_SWEEP)
    assert finished.code == 1
    assert "which trains sweep/1; wait for that to end, then start the same command" in finished.err
    assert not list(workplace.rglob("summary.json"))


@pytest.mark.parametrize("typed", ["hydra.run.dir=held", "-m hydra.sweep.dir=held seed=0,1"])
def test_a_folder_that_is_held_is_refused(train: CommandLine, workplace: Path, typed: str) -> None:
    with FolderLock(workplace / "held"):
        said = train(*typed.split()).error()
    assert "held is in use by process" in said
    assert everything_in(workplace) == {"held", "held/.lock"}


def test_what_was_checked_is_checked_again_under_the_lock(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process trains in the folder between the check and the lock."""
    before: dict[Path, int] = {}
    locked = output.locked

    def late(folder: Path, is_new: bool):  # type: ignore[no-untyped-def]
        if not before:
            monkeypatch.setattr("continual.cli.single.locked", locked)
            assert train("hydra.run.dir=run", "seed=1").code == 0
            before.update({path: path.stat().st_mtime_ns for path in (workplace / "run").rglob("*.*")})
        return locked(folder, is_new)

    monkeypatch.setattr("continual.cli.single.locked", late)
    finished = train("hydra.run.dir=run", "seed=2")
    assert finished.code == 1
    assert "the output folder run holds a run whose config differs (seed)" in finished.err
    after = {path: path.stat().st_mtime_ns for path in before if path.name != ".lock"}
    assert after == {path: before[path] for path in after}


@pytest.mark.parametrize(("typed", "of"), [("", "run"), ("-m hydra.launcher.workers=1", "sweep")])
def test_a_default_folder_is_always_a_new_one(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch, typed: str, of: str
) -> None:
    """Two commands of one second, and one that finds its folder made by another in the last moment."""
    at_noon = f"hydra.{of}.dir=out/${{now:noon}}"
    assert train(*typed.split(), at_noon, "seed=1").code == 0
    made = output.make_new
    asked: list[Path] = []

    def late(folder: Path) -> bool:
        asked.append(folder)
        if len(asked) == 1:
            folder.mkdir()
        return made(folder)

    monkeypatch.setattr(output, "make_new", late)
    assert train(*typed.split(), at_noon, "seed=2", "wandb.name=${hydra:runtime.output_dir}").code == 0
    assert [path.name for path in asked] == ["noon-2", "noon-3"]
    assert {path.name for path in (workplace / "out").iterdir()} == {"noon", "noon-2", "noon-3"}
    assert everything_in(workplace / "out" / "noon-2") == set()
    (config,) = (workplace / "out" / "noon-3").rglob("config.yaml")
    assert "out/noon-3" in config.read_text()


def test_a_sweep_here_is_seen_waited_for_and_cancelled(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, "hydra.launcher.workers=1", seeds=1, steps=60)
    script = Script("train", *arguments, folder=tmp_path, step_seconds=0.1)
    until((sweep / "0" / "checkpoint.pt").exists)
    assert cli.main(["status", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert f"trained by process {script.process.pid} on " in out
    assert " running" in out
    assert " waiting" in out
    assert "interrupted" not in out

    assert cli.main(["cancel", str(sweep)]) == 0
    assert "the sweep is stopped; to resume: " in capsys.readouterr().out
    assert script.wait() == 1
    assert "stopped, with checkpoints written" in script.output()
    assert holder(sweep) is None
    assert not list(sweep.glob("*/summary.json"))
    assert cli.main(["wait", str(sweep)]) == 1
    assert "no process or job trains them; to resume" in capsys.readouterr().err

    script = Script("train", *arguments, folder=tmp_path)
    until(lambda: holder(sweep))
    assert cli.main(["wait", str(sweep)]) == 0
    script.succeed()
    assert len(list(sweep.glob("*/summary.json"))) == 2
    assert not (sweep / "progress.json").exists()


# What is read back from a folder


@pytest.fixture
def sweep(train: CommandLine, workplace: Path) -> Path:
    """A sweep of two runs, of which the second is not finished."""
    assert train(*IN_SWEEP).code == 0
    for name in ("summary.json", "checkpoint.pt", "tasks.csv"):
        (workplace / "sweep" / "1" / name).unlink()
    return workplace / "sweep"


@pytest.mark.parametrize("place", ["agent", "env.dataset", "optimizer.lr", "launcher"])
def test_a_folder_alone_runs_no_code(sweep: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    mark = sweep.parent / "ran"
    call = {"_target_": "logging.FileHandler", "filename": str(mark)}
    if place == "launcher":
        manifest = Manifest.read(sweep)
        assert manifest is not None
        manifest.launcher = call
        manifest.write()
    else:
        path = sweep / "1" / ".hydra" / "config.yaml"
        config = yaml.safe_load(path.read_text())
        node, _, name = place.rpartition(".")
        (config[node] if node else config)[name] = call
        path.write_text(yaml.safe_dump(config))
    assert cli.main(["resume", str(sweep)]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "logging.FileHandler, which is no part of this program" in said
    assert not mark.exists()


def test_code_of_the_users_own_is_trusted_by_name(
    train: CommandLine, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("agent._target_=tests.sweep.slow.Slow",)
    assert train(*IN_SWEEP, *own).code == 0
    (workplace / "sweep" / "1" / "summary.json").unlink()
    assert cli.main(["resume", "sweep"]) == 1
    assert "add --trust tests.sweep.slow" in capsys.readouterr().err
    assert cli.main(["resume", "sweep", "--trust", "tests.sweep"]) == 0
    assert (workplace / "sweep" / "1" / "summary.json").exists()


def test_one_damaged_run_stops_no_other(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "0" / ".hydra" / "config.yaml").write_text("- 1")
    (sweep / "0" / "summary.json").write_text('{"stat')
    assert cli.main(["status", str(sweep)]) == 0
    assert cli.main(["resume", str(sweep)]) == 1
    assert "sweep/0/.hydra does not hold a whole config" in capsys.readouterr().err
    assert json.loads((sweep / "1" / "summary.json").read_text())["status"] == "completed"
