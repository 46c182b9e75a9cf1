from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from continual.config import Replica
from continual.sweep import cli, slurm_queue
from continual.sweep.manifest import Manifest
from continual.tracking import frozen
from tests.command_line import CommandLine


@pytest.fixture
def sweep(train: CommandLine, workplace: Path) -> Path:
    """A finished sweep of two runs."""
    assert train("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", "seed=0,1").code == 0
    return workplace / "sweep"


def test_status(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(sweep)]) == 0
    assert "2     completed" in capsys.readouterr().out


def test_status_of_what_is_not_finished(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = sweep / "0" / "summary.json"
    summary.write_text(summary.read_text().replace("completed", "failed").replace('"replicas"', '"error"'))
    (sweep / "1" / "summary.json").unlink()
    assert cli.main(["status", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "1     failed" in out
    assert "1     interrupted" in out
    assert "run 0 failed: 2" in out


def test_resume_takes_the_config_as_it_was(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [(sweep / name / "tasks.csv").read_bytes() for name in "01"]
    for name in ("tasks.csv", "summary.json", "checkpoint.pt"):
        (sweep / "1" / name).unlink()
    monkeypatch.chdir("/")
    before = (sweep / "0" / "summary.json").stat().st_mtime_ns
    assert cli.main(["resume", str(sweep)]) == 0
    assert [(sweep / name / "tasks.csv").read_bytes() for name in "01"] == tables
    assert (sweep / "0" / "summary.json").stat().st_mtime_ns == before


def test_wait_needs_jobs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wait", str(sweep)]) == 0
    (sweep / "1" / "summary.json").unlink()
    assert cli.main(["wait", str(sweep)]) == 1
    assert "no process or job trains them" in capsys.readouterr().err


def test_cancel_without_jobs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cancel", str(sweep)]) == 0
    assert "0 jobs cancelled" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "wait", "cancel", "resume"])
def test_a_folder_that_holds_no_sweep(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path} is not the folder of a sweep")


def test_a_config_that_was_lost(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "1" / ".hydra" / "config.yaml").unlink()
    assert cli.main(["resume", str(sweep)]) == 1
    assert "does not hold a whole config; start the sweep's command again." in capsys.readouterr().err


def test_a_run_that_a_killed_process_did_not_prolong(
    sweep: Path, train: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest has the new number of tasks before the folders do: what they hold is not taken for all."""
    again = ("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", "seed=0,1", "env.num_tasks=4")
    write = frozen.write

    def killed(run: Replica, hydra: Mapping[str, Any]) -> None:
        if run.folder.name == "1":
            raise KeyboardInterrupt
        write(run, hydra)

    with monkeypatch.context() as patched:
        patched.setattr(frozen, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train(*again)
    capsys.readouterr()
    assert cli.main(["resume", str(sweep)]) == 1
    folder = sweep / "1"
    assert f"error: {folder} has another config than the sweep; start" in capsys.readouterr().err
    assert train(*again).code == 0
    assert cli.main(["resume", str(sweep)]) == 0
    assert {len((sweep / name / "tasks.csv").read_text().splitlines()) for name in "01"} == {5}


def test_cancel_takes_back_what_is_submitted_while_it_does(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A launcher with several arrays adds a job while the first is cancelled, and then ends."""
    queues = iter([["1_0"], ["1_0", "2_0"], ["2_0"]])
    owners = iter(["process 7 on here"] * 2 + [None])
    cancelled: list[str] = []
    monkeypatch.setattr(cli, "queue_of", lambda manifest: dict.fromkeys(next(queues)))
    monkeypatch.setattr(cli, "holder", lambda folder: next(owners))
    monkeypatch.setattr(slurm_queue, "cancel", cancelled.extend)
    manifest = Manifest.read(sweep)
    assert manifest is not None
    manifest.submissions = {"1_0": ["0"], "2_0": ["1"]}
    manifest.write()
    assert cli.main(["cancel", str(sweep)]) == 0
    assert cancelled == ["1_0", "2_0"]
    assert "2 jobs cancelled; to resume: " in capsys.readouterr().out
