from pathlib import Path

import pytest

from continual.sweep import cli
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
