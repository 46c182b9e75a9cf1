"""Real offline runs, read back from the disk, and every way in which W&B may fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continual.tracking import wandb_run
from continual.tracking.wandb_run import WandbRun, section_key

ROWS: list[dict[str, float | int | str | None]] = [
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


@pytest.fixture(autouse=True)
def _fresh_process_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test see the first warning of its process."""
    monkeypatch.setattr(wandb_run, "_process", wandb_run._Process())


def make_run(folder: Path, run_id: str = "run0", **changes: Any) -> WandbRun:
    arguments: dict[str, Any] = {
        "folder": folder,
        "mode": "offline",
        "run_id": run_id,
        "name": f"name of {run_id}",
        "group": "sweep",
        "job_type": "l2_init",
        "tags": ["mlp", "random_label_digits"],
        "config": {"seed": 3, "agent": {"l2_weight": 1e-2}, "network": {"hidden_size": [100, 50]}},
        "project": "continual",
        "entity": None,
        "resumed": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return WandbRun(**arguments | changes)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all parts of a run, in the order of their start."""
    import wandb

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


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that can import this file as `helpers`."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-c", "import test_wandb_run as helpers\n" + code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


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
        ("one_step_backward_transfer", "performance/one_step_backward_transfer"),
        ("dead_unit_fraction", "plasticity/dead_unit_fraction"),
        ("dormant_unit_fraction", "plasticity/dormant_unit_fraction"),
        ("srank", "plasticity/srank"),
        ("effective_rank", "plasticity/effective_rank"),
        ("weight_magnitude", "plasticity/weight_magnitude"),
        ("distance_from_init", "plasticity/distance_from_init"),
        ("gradient_norm@0.5", "plasticity/gradient_norm@0.5"),
        ("srank/hidden0", "layers/srank/hidden0"),
        ("gradient_norm/hidden1", "layers/gradient_norm/hidden1"),
    ],
)
def test_section_key(column: str, key: str) -> None:
    assert section_key(column) == key


def test_offline_run_holds_everything_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path)
    for row in ROWS:
        run.log(row)
    run.finish({"status": "completed", "total_average_online_accuracy": 0.42})

    records = read_records(tmp_path)
    assert logged_rows(records) == [expected_row(row) for row in ROWS]

    (start,) = of_type(records, "run")
    config = {key: value for key, value in start["config"]["update"].items() if key != "_wandb"}
    assert config == {
        "seed": 3,
        "agent": {"l2_weight": 1e-2},
        "network": {"hidden_size": [100, 50]},
    }
    assert start["run_id"] == "run0"
    assert start["display_name"] == "name of run0"
    assert start["run_group"] == "sweep"
    assert start["job_type"] == "l2_init"
    assert start["tags"] == ["mlp", "random_label_digits"]
    assert start["project"] == "continual"

    steps = {metric.get("glob_name"): metric.get("step_metric") for metric in of_type(records, "metric")}
    assert steps.items() >= {f"{name}/*": "task" for name in wandb_run._SECTIONS}.items()

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


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    home, work, scratch = (tmp_path / name for name in ("home", "work", "scratch"))
    for folder in (home, work, scratch):
        folder.mkdir()
    code = """
import os, sys, pathlib
os.chdir(sys.argv[1])
run = helpers.make_run(pathlib.Path(sys.argv[2]))
run.log(helpers.ROWS[0])
run.finish({}, exit_code=1)
"""
    done = python(code, work, tmp_path / "run", HOME=str(home), TMPDIR=str(scratch))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [list(folder.iterdir()) for folder in (home, work, scratch)] == [[], [], []]
    assert [record["exit_code"] for record in of_type(read_records(tmp_path / "run"), "exit")] == [1]


def test_many_runs_open_at_once(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(i), f"run{i}", config={"seed": i}) for i in range(40)]
    for task in range(3):
        for i, run in enumerate(runs):
            run.log({"task": task, "online_accuracy": i + task / 10})
    for i, run in enumerate(runs):
        run.finish({"total_average_online_accuracy": i})

    for i in range(40):
        records = read_records(tmp_path / str(i))
        assert logged_rows(records) == [
            {"task": task, "performance/online_accuracy": i + task / 10} for task in range(3)
        ]
        (start,) = of_type(records, "run")
        assert (start["run_id"], start["config"]["update"]["seed"]) == (f"run{i}", i)


@pytest.mark.parametrize(("hard", "written"), [(1024, 20), (128, 16)])
def test_a_low_limit_of_open_files_loses_no_run_silently(tmp_path: Path, hard: int, written: int) -> None:
    code = """
import logging, pathlib, resource, sys
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
runs = [helpers.make_run(pathlib.Path(sys.argv[1]) / str(i), f"run{i}") for i in range(20)]
for run in runs:
    run.log(helpers.ROWS[0])
    run.finish({})
again = helpers.make_run(pathlib.Path(sys.argv[1]) / "after", "after")
again.log(helpers.ROWS[0])
again.finish({})
"""
    done = python(code, tmp_path, hard)
    assert done.returncode == 0, done.stderr
    warning = (
        f"Some replicas have no W&B run: {hard} open files are allowed, too few for more than "
        f"{written} W&B runs at a time; raise the hard limit (ulimit -H -n).\n"
    )
    assert done.stderr == ("" if written == 20 else warning)
    for name in [*range(written), "after"]:
        assert logged_rows(read_records(tmp_path / str(name))) == [expected_row(ROWS[0])]
    assert not any((tmp_path / str(name) / "wandb").exists() for name in range(written, 20))


def test_a_killed_run_goes_on_as_a_second_part_with_every_row(tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
run = helpers.make_run(pathlib.Path(sys.argv[1]))
for row in helpers.ROWS[:3]:
    run.log(row)
os.kill(os.getpid(), signal.SIGKILL)
"""
    folder, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()  # a killed process leaves its temporary files
    assert python(code, folder, TMPDIR=str(scratch)).returncode == -signal.SIGKILL
    run = make_run(folder, resumed=True)
    for row in ROWS:
        run.log(row)
    run.finish({})

    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    records = read_records(folder)
    assert {start["run_id"] for start in of_type(records, "run")} == {"run0"}
    found = {row["task"]: row for row in logged_rows(records)}
    assert found == {row["task"]: expected_row(row) for row in ROWS}


def test_disabled_mode_does_not_import_wandb(tmp_path: Path) -> None:
    code = """
import pathlib, sys
run = helpers.make_run(pathlib.Path(sys.argv[1]), mode="disabled")
run.log(helpers.ROWS[0])
run.finish({})
print("wandb" in sys.modules)
"""
    done = python(code, tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_start_warns_once_and_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise OSError("No space left on device\nand more lines")

    monkeypatch.setattr(wandb, "init", fail)
    for i in range(3):
        run = make_run(tmp_path / str(i), f"run{i}")
        run.log(ROWS[0])
        run.finish({})
    assert warnings_of(caplog) == [
        "A W&B run could not be started (OSError: No space left on device); training goes on."
    ]


@pytest.mark.parametrize("call", ["log", "finish"])
def test_a_failing_call_warns_once_and_ends_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    runs = [make_run(tmp_path / str(i), f"run{i}") for i in range(2)]
    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(call)
        raise RuntimeError("the service is gone")

    opened = [run._run for run in runs]
    with monkeypatch.context() as patch:
        for wandb_side in opened:
            patch.setattr(wandb_side, call, fail)
        for run in runs:
            for row in ROWS[:3]:
                run.log(row)
            run.finish({})
            run.finish({})
    for wandb_side in opened:
        assert wandb_side is not None
        wandb_side.finish()
    assert calls == [call] * 2
    assert len(warnings_of(caplog)) == 1
    assert "RuntimeError: the service is gone" in warnings_of(caplog)[0]


def test_records_lost_by_a_full_disk_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path)
    run.log(ROWS[0])
    (log,) = tmp_path.glob("wandb/*/logs/debug-internal.log")
    with log.open("a") as file:
        file.write('{"level":"ERROR","msg":"writer: failed to save record: no space left"}\n')
    run.finish({})
    (warning,) = warnings_of(caplog)
    assert f"records were lost, see {log}" in warning
    assert log.exists()


def test_without_a_valid_key_online_runs_are_written_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    for i in range(2):
        run = make_run(tmp_path / str(i), f"run{i}", mode="online")
        run.log(ROWS[0])
        run.finish({})
        assert logged_rows(read_records(tmp_path / str(i))) == [expected_row(ROWS[0])]
        (part,) = (tmp_path / str(i) / "wandb").iterdir()
        assert part.name.startswith("offline-run-")
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B cannot be used online (AuthenticationError: ")
    assert f"`wandb sync {tmp_path / '0' / 'wandb'}`" in warning
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("resumed", [False, True])
def test_only_a_resumed_online_run_joins_the_one_at_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    import wandb

    started = []

    def start(config: dict[str, Any], settings: wandb.Settings) -> wandb.Run:
        started.append((settings.mode, settings.resume, settings.run_id))
        raise wandb.errors.CommError("no server here")

    monkeypatch.setattr(wandb, "init", start)
    make_run(tmp_path, mode="online", resumed=resumed)
    assert started == [("online", "allow" if resumed else None, "run0"), ("offline", None, "run0")]


def test_a_server_lost_at_the_end_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    finished = []

    class Run:
        def __init__(self, **_: object) -> None:
            self.summary: dict[str, Any] = {}

        def define_metric(self, *_: object, **__: object) -> None: ...

        def finish(self, exit_code: int) -> None:
            finished.append(exit_code)
            raise TimeoutError("Timed out finishing run.")

    monkeypatch.setattr(wandb, "init", Run)
    runs = [make_run(tmp_path / str(i), f"run{i}", mode="online") for i in range(3)]
    for run in runs:
        run.finish({})
    assert finished == [0]
    (warning,) = warnings_of(caplog)
    assert "TimeoutError" in warning


def test_a_row_without_a_whole_task_number_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(TypeError, match="whole number"):
        run.log({"task": "0"})
    run.finish({})


def test_starting_and_logging_are_cheap(tmp_path: Path) -> None:
    """A run costs 15 ms to start and a row 0.5 ms; the bounds leave room for a busy machine."""
    import time

    make_run(tmp_path / "first").finish({})
    began = time.perf_counter()
    runs = [make_run(tmp_path / str(i), f"run{i}") for i in range(10)]
    started = time.perf_counter()
    for run in runs:
        for row in ROWS:
            run.log(row)
    logged = time.perf_counter()
    for run in runs:
        run.finish({})
    finished = time.perf_counter()
    assert (started - began) / 10 < 0.1
    assert (logged - started) / 50 < 0.01
    assert (finished - logged) / 10 < 0.1
