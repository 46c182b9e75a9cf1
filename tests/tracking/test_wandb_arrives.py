"""What arrives at a W&B server from wandb's own client, whatever happens on the way."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.sweep.cli import main
from continual.sweep.upload import upload
from continual.tracking import frozen, wandb_run
from continual.tracking.lock import FolderLock, holder
from continual.tracking.wandb_run import WandbWriter
from tests import tiny
from tests.tracking.test_wandb_run import (
    DONE,
    ROWS,
    description,
    expected_row,
    warnings_of,
    write,
)
from tests.tracking.wandb_server import ENTITY, Run, WandbServer

EXPECTED = [{**expected_row(row), "_step": row["task"]} for row in ROWS]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that the client of this test talks to."""
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def assert_whole(run: Run) -> None:
    assert run.history == EXPECTED
    assert run.exit_code == 0
    assert run.summary["status"] == "completed"


def test_64_replicas_arrive_at_once(
    server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [description(tmp_path / str(i), f"run{i}", mode="online") for i in range(64)]
    assert len(write(*runs, summary=DONE).arrived) == 64
    assert caplog.records == []
    assert len(server.runs) == 64
    for run in server.runs.values():
        assert_whole(run)
        assert (run.entity, run.project) == (ENTITY, "continual")
        assert run.config == {
            "agent": "l2_init",
            "seed": 3,
            "settings": {"network": {"hidden_size": [100, 50]}},
        }
        assert run.settings["displayName"] == f"name of {run.id}"
        assert run.settings["groupName"] == "sweep"
        assert run.settings["jobType"] == "l2_init"
        assert run.settings["tags"] == ["mlp", "random_label_digits"]
        assert str(tmp_path) not in json.dumps(run.settings)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"uploaded.json"}


def test_a_run_that_paused_and_was_killed_is_whole_in_the_end(server: WandbServer, tmp_path: Path) -> None:
    run = description(tmp_path, mode="online")
    write(run, rows=ROWS[:2])
    assert server.runs["run0"].history == EXPECTED[:2]
    assert (server.runs["run0"].exit_code, server.runs["run0"].preempting) == (1, True)

    writer = WandbWriter()
    writer.start(run, resumed=True)
    for row in ROWS[:3]:
        writer.log(run, row)
    assert writer._process is not None
    until(lambda: server.asked["RunResumeStatus"])
    writer._process.kill()
    writer.close()

    write(run, summary=DONE, resumed=True)
    assert_whole(server.runs["run0"])


def test_a_server_that_is_asked_too_often_gets_all(server: WandbServer, tmp_path: Path) -> None:
    asked = Counter[str]()

    def refuse(path: str) -> int:
        asked[path] += 1
        return 429 if asked[path] == 1 else 0

    server.refuse = refuse
    write(description(tmp_path, mode="online"), summary=DONE)
    assert_whole(server.runs["run0"])


def test_a_connection_that_comes_back_is_made_use_of(server: WandbServer, tmp_path: Path) -> None:
    run = description(tmp_path, mode="online")
    writer = WandbWriter()
    writer.start(run, resumed=False)
    until(lambda: "run0" in server.runs)
    server.lost = True
    for row in ROWS:
        writer.log(run, row)
    writer.end(run, DONE)
    threading.Timer(2, lambda: setattr(server, "lost", False)).start()
    writer.close()
    assert_whole(server.runs["run0"])


def test_a_lost_server_is_waited_for_once_and_upload_makes_it_good(
    server: WandbServer,
    tmp_path: Path,
    npz: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb_run, "_TIMEOUT", 1)
    folders = trained(tmp_path, npz, "online", "disabled", "offline", server_lost=server)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B cannot be reached (")
    assert server.runs == {}

    monkeypatch.setattr(wandb_run, "_TIMEOUT", 30)
    assert upload(tmp_path) == 0
    assert len(server.runs) == 3
    for folder, run in zip(
        folders, sorted(server.runs.values(), key=lambda r: r.config["seed"]), strict=True
    ):
        rows = tiny.Finished(folder).rows
        assert [row["performance/online_accuracy"] for row in run.history] == pytest.approx(
            [row["online_accuracy"] for row in rows]
        )
        score = tiny.Finished(folder).summary["total_average_online_accuracy"]
        assert run.history[-1]["performance/score"] == pytest.approx(score)
        assert run.config["agent"] == "l2_init"
        assert run.exit_code == 0

    asked = server.asked.copy()
    assert upload(tmp_path) == 0  # nothing is sent twice
    assert server.asked == asked
    (offline,) = tmp_path.glob("*/wandb/offline-run-*/*.wandb")
    assert offline.with_name(f"{offline.name}.synced").exists()  # nor by `wandb sync --sync-all`
    assert upload(folders[0], again=True) == 0
    assert server.asked["UpsertBucket"] > asked["UpsertBucket"]


def test_what_is_trained_now_or_damaged_is_missing(
    server: WandbServer, tmp_path: Path, npz: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    damaged, in_use, _, cut, scrambled = trained(tmp_path, npz, *["disabled"] * 5)
    (damaged / ".hydra" / "config.yaml").write_text("{")
    (cut / "tasks.csv").write_text((cut / "tasks.csv").read_text()[:-5] + "\n0,\n")
    (scrambled / "tasks.csv").write_text("a,b\n1,2\n")
    with FolderLock(in_use):
        assert main(["upload", str(tmp_path)]) == 1
    assert [run.config["seed"] for run in server.runs.values()] == [2]
    assert "0/.hydra does not hold a whole config" in caplog.text
    assert "1 is in use by process" in caplog.text
    assert "3/tasks.csv is damaged: a row has" in caplog.text
    assert "4/tasks.csv is damaged: it lacks tasks" in caplog.text
    assert "runs sent: 1; at W&B before: 0; missing: 4" in caplog.text


def test_who_is_to_train_a_run_is_not_held_up(
    server: WandbServer,
    tmp_path: Path,
    npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While finished runs of a sweep are sent, those that wait in it can be begun."""
    done, waiting = trained(tmp_path, npz, "disabled", "disabled")
    (waiting / "summary.json").unlink()
    held: list[str | None] = []

    close_anyway = WandbWriter.close

    def close(writer: WandbWriter) -> None:
        held.extend(holder(folder) for folder in (done, waiting))
        close_anyway(writer)

    monkeypatch.setattr(WandbWriter, "close", close)
    with FolderLock(done.parent):
        assert main(["upload", str(tmp_path)]) == 1
    assert [owner is not None for owner in held] == [True, False]
    assert [run.config["seed"] for run in server.runs.values()] == [0]
    assert f"{waiting} is yet to be trained to its end, by process" in caplog.text


def test_what_cannot_be_sent_is_for_the_same_command(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, npz, "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    assert main(["upload", str(tmp_path)]) == 1
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B cannot be reached (AuthenticationError: ")
    assert warning.endswith("; the same command sends what is missing.")


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} holds no runs.\n"


def test_wandb_sync_sends_an_offline_run(server: WandbServer, tmp_path: Path) -> None:
    write(description(tmp_path), summary=DONE)
    (part,) = tmp_path.glob("wandb/offline-run-*")
    program = [sys.executable, "-m", "wandb", "sync", str(part)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_whole(server.runs["run0"])
    assert server.runs["run0"].project == "continual"


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def trained(folder: Path, npz: Path, *modes: str, server_lost: WandbServer | None = None) -> list[Path]:
    """Folders of finished runs with these modes, as a sweep leaves them."""
    config = tiny.small(npz, "agent=l2_init")
    configs = [
        {**config, "seed": i, "wandb": {**config["wandb"], "mode": mode}} for i, mode in enumerate(modes)
    ]
    runs = tiny.replicas(configs, folder)
    for run in runs:
        choices = {"agent": "l2_init", "env": "random_label_digits", "hydra/launcher": "packed"}
        frozen.write(run, {"overrides": {"task": []}, "runtime": {"choices": choices}})
    if server_lost:
        server_lost.lost = True
    tiny.train(configs, folder)
    if server_lost:
        server_lost.lost = False
    return [run.folder for run in runs]
