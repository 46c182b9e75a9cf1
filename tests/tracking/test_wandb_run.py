"""Real offline runs, read back from the disk, and every way in which W&B may fail."""

import io
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import continual
from continual.tracking import wandb_run, wandb_writer
from continual.tracking.recorded import RecordedRun
from continual.tracking.wandb_run import WandbRun, WandbWriter, section_key
from continual.training import Interrupted
from tests import tiny

Row = dict[str, float | int | str | None]
DONE = {"status": "completed", "total_average_online_accuracy": 0.42}
OVERRULING = {
    "WANDB_SWEEP_ID": "xyz",
    "WANDB_RUN_ID": "abc",
    "WANDB_RESUME": "must",
    "WANDB_NAME": "other",
    "WANDB_RUN_GROUP": "other",
    "WANDB_JOB_TYPE": "other",
    "WANDB_TAGS": "other",
    "WANDB_NOTES": "other",
    "WANDB_PROJECT": "other",
    "WANDB_ENTITY": "other",
    "WANDB_MODE": "disabled",
    "WANDB_DISABLED": "true",
    "WANDB_CONSOLE_MULTIPART": "true",
    "WANDB_X_SYNC_DIR_SUFFIX": "other",
    "TRAINING_JOB_NAME": "sagemaker",
    "CURRENT_HOST": "algo-1",
}
SMALL = ("env=random_label_digits", "env.num_tasks=1", "env.steps_per_task=3")
ROWS: list[Row] = [
    {
        "task": task,
        "task_type": "hard" if task % 2 else "",
        "step": 30 * (task + 1),
        "online_accuracy": 1 / (task + 3),
        "online_loss": 0.1 + 0.2 * task,
        "test_accuracy": None,
        "dead_unit_fraction": 0.0,
        "srank": 17,
        "srank/hidden0": 16,
        "online_accuracy@0.25": task / 7,
    }
    for task in range(5)
]


def description(folder: Path, run_id: str = "run0", **changes: Any) -> WandbRun:
    arguments: dict[str, Any] = {
        "folder": str(folder),
        "mode": "offline",
        "id": run_id,
        "name": f"name of {run_id}",
        "group": "sweep",
        "job_type": "l2_init",
        "tags": ("mlp", "random_label_digits"),
        "config": {"agent": "l2_init", "seed": 3, "settings": {"network": {"hidden_size": [100, 50]}}},
        "project": "continual",
        "entity": None,
        "notes": "what for",
    }
    folder.mkdir(parents=True, exist_ok=True)
    return WandbRun(**arguments | changes)


def write(
    *runs: WandbRun, rows: Sequence[Row] = ROWS, summary: dict[str, Any] | None = None, resumed: bool = False
) -> WandbWriter:
    """Write runs as a population does; without a summary they are left before their end."""
    writer = WandbWriter()
    for run in runs:
        writer.start(run, resumed, live=run.mode == "online")
    for row in rows:
        for run in runs:
            writer.log(run, row)
    for run in runs if summary else ():
        writer.end(run, summary or {})
    writer.close()
    return writer


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all parts of a run, in the order of their start."""
    import wandb

    if tuple(map(int, wandb.__version__.split(".")[:2])) < (0, 31):
        pytest.skip("this wandb cannot print an offline run; what arrives from one is tested with it too")
    records = []
    for file in sorted(folder.glob("wandb/*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        # What `wandb leet inspect --json` calls, without a second for its own start.
        program = [wandb.util.get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        printed = subprocess.run(
            [*program, "--run-file", str(file), str(file.parent.parent)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        records += [json.loads(line) for line in printed.splitlines()]
    return records


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def logged_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the history without W&B's own keys; check that each row's step is its task."""
    rows = []
    for item in (entry["item"] for entry in of_type(records, "history")):
        assert item["_step"] == item["task"]
        rows.append({key: value for key, value in item.items() if not key.startswith("_")})
    return rows


def expected_row(row: dict[str, float | int | str | None]) -> dict[str, Any]:
    return {section_key(key): value for key, value in row.items() if value not in (None, "")}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == wandb_run.__name__]


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("task", "task"),
        ("task_type", "task_type"),
        ("step", "step"),
        ("online_accuracy", "performance/online_accuracy"),
        ("online_loss", "performance/online_loss"),
        ("test_accuracy", "performance/test_accuracy"),
        ("test_accuracy@0.25", "performance/test_accuracy@0.25"),
        ("score", "performance/score"),
        ("online_squared_error", "performance/online_squared_error"),
        ("one_step_backward_transfer", "performance/one_step_backward_transfer"),
        ("dead_unit_fraction", "plasticity/dead_unit_fraction"),
        ("dormant_unit_fraction", "plasticity/dormant_unit_fraction"),
        ("srank", "plasticity/srank"),
        ("effective_rank", "plasticity/effective_rank"),
        ("weight_magnitude", "plasticity/weight_magnitude"),
        ("distance_from_init", "plasticity/distance_from_init"),
        ("gradient_norm@0.5", "plasticity/gradient_norm@0.5"),
        ("srank/hidden0", "plasticity_by_layer/srank/hidden0"),
        ("gradient_norm/hidden1", "plasticity_by_layer/gradient_norm/hidden1"),
    ],
)
def test_section_key(column: str, key: str) -> None:
    assert section_key(column) == key


def test_sections_are_sorted_as_people_look_for_them() -> None:
    assert list(wandb_writer.SECTIONS) == sorted(wandb_writer.SECTIONS)
    for column in (*ROWS[0], "score"):
        key = section_key(column)
        assert key.partition("/")[0] in wandb_writer.SECTIONS or "/" not in key


def test_offline_run_holds_everything_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(description(tmp_path), summary=DONE)

    records = read_records(tmp_path)
    assert logged_rows(records) == [expected_row(row) for row in ROWS]

    (start,) = of_type(records, "run")
    config = {key: value for key, value in start["config"]["update"].items() if key != "_wandb"}
    assert config == {"agent": "l2_init", "seed": 3, "settings": {"network": {"hidden_size": [100, 50]}}}
    assert start["run_id"] == "run0"
    assert start["display_name"] == "name of run0"
    assert start["run_group"] == "sweep"
    assert start["job_type"] == "l2_init"
    assert start["tags"] == ["mlp", "random_label_digits"]
    assert start["project"] == "continual"
    assert start["notes"] == "what for"

    steps = {metric.get("glob_name"): metric.get("step_metric") for metric in of_type(records, "metric")}
    assert steps.items() >= {f"{name}/*": "task" for name in wandb_writer.SECTIONS}.items()

    summary: dict[str, Any] = {}
    for record in of_type(records, "summary"):
        summary |= record.get("update", {})
    assert summary["status"] == "completed"
    assert summary["total_average_online_accuracy"] == 0.42
    assert summary["performance/online_accuracy"] == ROWS[-1]["online_accuracy"]
    assert [record["exit_code"] for record in of_type(records, "exit")] == [0]

    files = [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]
    assert [path.name for path in files] == ["run-run0.wandb"]
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_nothing_is_written_outside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write(description(tmp_path / "run"), rows=ROWS[:1], summary={"status": "failed"})
    for folder in ("HOME", "TMPDIR", "work"):
        assert list((tmp_path / folder).iterdir()) == []
    assert [record["exit_code"] for record in of_type(read_records(tmp_path / "run"), "exit")] == [1]


def test_no_run_is_lost_where_few_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -n 96\nexec "{sys.executable}" "$@"\n')
    limited.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(limited))
    write(*(description(tmp_path / str(i), f"run{i}") for i in range(24)), summary=DONE)
    assert caplog.records == []
    for i in (0, 23):
        records = read_records(tmp_path / str(i))
        assert logged_rows(records) == [expected_row(row) for row in ROWS]
        assert of_type(records, "run")[0]["run_id"] == f"run{i}"
    assert len(list(tmp_path.glob("*/wandb/offline-run-*/*.wandb"))) == 24


def test_a_run_that_is_written_again_replaces_what_was_not_synced(tmp_path: Path) -> None:
    run = description(tmp_path)
    write(run, rows=ROWS[:3])  # left at a pause
    (part,) = tmp_path.glob("wandb/offline-run-*")
    records = read_records(tmp_path)
    assert len(logged_rows(records)) == 3
    assert [record["exit_code"] for record in of_type(records, "exit")] == [1]
    assert len(of_type(records, "preempting")) == 1

    write(run, summary=DONE, resumed=True)
    assert logged_rows(read_records(tmp_path)) == [expected_row(row) for row in ROWS]
    (after,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert after.parent != part

    after.with_name(after.name + ".synced").touch()  # as `wandb sync` does
    write(run, summary=DONE, resumed=True)
    assert after.exists()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_more_interrupted_runs_than_are_written_at_a_time_with_more_rows_than_wait(tmp_path: Path) -> None:
    rows: list[Row] = [{"task": task} for task in range(wandb_writer._WAITING + 2)]
    recorded = RecordedRun(rows, [None] * len(rows), summary=None)
    writer = WandbWriter()
    for i in range(wandb_writer._AT_A_TIME + 1):
        writer.write(description(tmp_path / str(i), f"run{i}"), recorded)
    writer.close()
    for folder in tmp_path.iterdir():
        records = read_records(folder)
        assert len(logged_rows(records)) == len(rows)
        assert len(of_type(records, "preempting")) == 1


@pytest.mark.parametrize("summary", [None, DONE])
def test_a_failure_at_a_runs_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any] | None
) -> None:
    run = Mock()
    run.finish.side_effect = OSError("no room")
    monkeypatch.setattr(wandb_writer, "_open", lambda start: run)
    out = io.StringIO()
    start = {**asdict(description(tmp_path)), "live": False, "timeout": 1}
    writer = wandb_writer.RunWriter(start, wandb_writer.Shared(out))
    writer.daemon = True
    writer.start()
    for message in [
        {"row": {"task": 0}, "step": 0},
        *([{"summary": summary, "failed": False}] if summary else []),
        None,
    ]:
        writer.messages.put(message)
    writer.join(timeout=10)
    assert not writer.is_alive()
    assert json.loads(out.getvalue())["warning"] == "W&B runs cannot be written (OSError: no room)"


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_no_process_starts_for_nothing(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A run that was left before its first row is not worth a W&B run either."""
    config = tiny.small(npz, "engine.chunk_steps=7")
    config["wandb"]["mode"] = mode

    def start(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(WandbWriter, "_started", start)
    if mode == "disabled":
        tiny.train([config], tmp_path)
    else:
        with pytest.raises(Interrupted):
            tiny.train([config], tmp_path, should_stop=lambda: True)
    assert not list(tmp_path.glob("*/wandb"))


def test_a_failure_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [description(tmp_path / str(i), f"run{i}") for i in range(3)]
    for i in (0, 2):
        (tmp_path / str(i) / "wandb").touch()  # where a folder should be
    write(*runs, summary=DONE)
    (warning,) = warnings_of(caplog)
    assert re.match(r"W&B runs cannot be written \(.*\); training goes on, and `python", warning)
    assert logged_rows(read_records(tmp_path / "1")) == [expected_row(row) for row in ROWS]


def test_the_end_of_wandbs_process_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = description(tmp_path, mode="online")
    writer = WandbWriter()
    writer.start(run, resumed=False)
    assert writer._process is not None
    writer._process.kill()
    writer._process.wait()
    for row in ROWS:
        writer.log(run, row)
    writer.end(run, DONE)
    writer.close()
    assert [w.partition(";")[0] for w in warnings_of(caplog)] == ["W&B's process has ended (Broken pipe)"]


def test_without_a_valid_key_an_online_run_is_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    write(*(description(tmp_path / str(i), f"run{i}", mode="online") for i in range(2)), summary=DONE)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B cannot be reached (AuthenticationError: ")
    assert warning.endswith("`python scripts/sweep.py upload FOLDER` makes it good.")
    assert capfd.readouterr() == ("", "")


def test_a_sweep_warns_once_and_the_next_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    two_populations = ("seed=0,1", "engine.max_replicas=1", "engine.compile=false", "wandb.mode=online")
    for sweep in ("one", "two"):
        continual.train(*two_populations, *SMALL, folder=tmp_path / sweep, workers=1)
    assert [w.partition(" (")[0] for w in warnings_of(caplog)] == 2 * ["W&B cannot be reached"]


def test_an_agents_environment_does_not_overrule_what_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in OVERRULING.items():
        monkeypatch.setenv(name, value)
    runs = [description(tmp_path / str(i), f"run{i}") for i in range(2)]
    with caplog.at_level(logging.INFO, logger=wandb_run.__name__):
        write(*runs, summary=DONE)
    (said,) = warnings_of(caplog)
    assert said.startswith("Not read for W&B: WANDB_CONSOLE_MULTIPART, WANDB_DISABLED, ")
    for i, run in enumerate(runs):
        (start,) = of_type(read_records(tmp_path / str(i)), "run")
        assert start["run_id"] == run.id
        assert start["display_name"] == run.name
        assert (start["run_group"], start["job_type"], start["tags"]) == (
            run.group,
            run.job_type,
            [*run.tags],
        )
        assert (start["project"], start.get("entity"), start["notes"]) == (run.project, None, run.notes)
        assert not start.get("sweep_id")
    assert not (tmp_path / "elsewhere").exists()


def test_what_hurries_does_not_wait_for_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A SLURM job has to put itself back into the queue, however many runs W&B has to write."""
    rows: list[Row] = [{"task": task} for task in range(2000)]
    recorded = RecordedRun(rows, [None] * len(rows), summary=DONE)
    writer = WandbWriter(seconds_when_left=0.1)
    for i in range(8):
        writer.write(description(tmp_path / str(i), f"run{i}"), recorded)
    began = time.monotonic()
    with pytest.raises(Interrupted), writer:
        raise Interrupted
    assert time.monotonic() - began < 5
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B was given no more than 0.1 s, which are over; training goes on, and")
