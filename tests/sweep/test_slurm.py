"""On a real SLURM (scripts/slurm-cluster.sh): the same results as here, whatever happens to the jobs."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.sweep import slurm_queue
from tests.sweep.subprocesses import Script, ran, sweep_arguments, tables, until

pytestmark = pytest.mark.slurm

SEEDS = 12
LAUNCHER = (
    "hydra/launcher=slurm",
    "hydra.launcher.poll_seconds=0.5",
    "hydra.launcher.max_replicas=6",
    "hydra.launcher.time_minutes=2",
    "hydra.launcher.signal_seconds=10",
)


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path) -> Iterator[None]:
    """Skips where there is no SLURM, unless it is said that there must be; leaves no job behind."""
    answers = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0
    if not answers:
        if os.environ.get("CONTINUAL_REQUIRE_SLURM"):
            pytest.fail("there is no SLURM here, and CONTINUAL_REQUIRE_SLURM is set")
        pytest.skip("there is no SLURM here; scripts/slurm-cluster.sh up starts one")
    yield
    for manifest in tmp_path.glob("*/manifest.json"):
        jobs = json.loads(manifest.read_text())["submissions"]
        slurm_queue.cancel(jobs)
        until(lambda: not jobs.keys() & (slurm_queue.queued() or {}).keys())  # noqa: B023


@pytest.fixture(scope="module")
def local(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the sweep as trained on this machine."""
    folder = tmp_path_factory.mktemp("local")
    arguments = sweep_arguments(npz, folder / "sweep", "hydra.launcher.workers=1", seeds=SEEDS)
    Script("train", *arguments, folder=folder).succeed()
    return tables(folder / "sweep", 2 * SEEDS)


def test_as_on_this_machine(npz: Path, tmp_path: Path, local: dict[str, bytes]) -> None:
    """Also: arrays are as short as the cluster wants them, and a second process keeps out."""
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, seeds=SEEDS)
    first = Script("train", *arguments, folder=tmp_path)
    until((sweep / "manifest.json").exists)
    second = Script("train", *arguments, folder=tmp_path)
    assert second.wait() == 1
    assert re.search(r"error: .*sweep is in use by process \d+ on", second.output())
    first.succeed()
    assert tables(sweep, 2 * SEEDS) == local

    jobs = json.loads((sweep / "manifest.json").read_text())["submissions"]
    assert sorted(map(len, jobs.values())) == [6, 6, 6, 6]
    arrays = {job.partition("_")[0] for job in jobs}
    assert len(arrays) == (2 if slurm_queue.longest_array() < 4 else 1)

    again = Script("train", *arguments, folder=tmp_path).succeed()
    assert "24 runs, 24 of them finished before" in again
    assert "to SLURM" not in again


def test_whatever_happens_to_its_jobs(npz: Path, tmp_path: Path, local: dict[str, bytes]) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, seeds=SEEDS)
    script = Script("train", *arguments, folder=tmp_path, step_seconds=1)
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="start")

    # One is told that its time is up, one is put back, one is killed, one loses its node.
    one, two, three, four = _running_with_checkpoint(sweep)
    ran(["scancel", "--signal=USR2", one])
    ran(["scontrol", "requeue", two])
    os.kill(_process_of(sweep, three), signal.SIGKILL)
    node, process = slurm_queue.queued()[four].reason, _process_of(sweep, four)  # type: ignore[index]
    ran(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
    until(lambda: not Path(f"/proc/{process}").exists(), doing="node down")
    ran(["scontrol", "update", f"nodename={node}", "state=resume"])
    until(lambda: three not in (slurm_queue.queued() or {three}), doing="killed")
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="all back")

    # All have to make room for jobs of higher priority.
    ran(["sbatch", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "srun sleep 2"])
    until(lambda: not _running(sweep), doing="preempted")
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="all back again")

    # All are cancelled, which is no failure: the sweep is resumed, and not slowed down any more.
    Script("sweep", "cancel", str(sweep), folder=tmp_path).succeed()
    assert script.wait() == 1
    assert "was cancelled" in script.output()
    assert not list(sweep.glob("*/summary.json"))
    progress = {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("*/checkpoint.pt")}
    assert len(progress) == 2 * SEEDS
    Script("sweep", "resume", str(sweep), folder=tmp_path).succeed()
    assert tables(sweep, 2 * SEEDS) == local
    assert "going on from task" in "".join(path.read_text() for path in sweep.glob("slurm/*.out"))


def test_detached(npz: Path, tmp_path: Path, local: dict[str, bytes]) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, "hydra.launcher.detach=true", seeds=SEEDS)
    out = Script("train", *arguments, folder=tmp_path, step_seconds=0.02).succeed()
    assert f"sweep.py status|wait|cancel {sweep}" in out
    assert not list(sweep.glob("*/summary.json"))
    submissions = json.loads((sweep / "manifest.json").read_text())["submissions"]
    assert len(submissions.keys() & (slurm_queue.queued() or {}).keys()) == 4

    status = Script("sweep", "status", str(sweep), folder=tmp_path).succeed()
    assert re.search(r"24 +(pending|running|not started)", status) or "running" in status
    Script("sweep", "wait", str(sweep), folder=tmp_path).succeed()
    assert tables(sweep, 2 * SEEDS) == local
    assert re.search(r"24 +completed", Script("sweep", "status", str(sweep), folder=tmp_path).succeed())


def test_a_job_that_cannot_be_submitted(npz: Path, tmp_path: Path) -> None:
    arguments = sweep_arguments(npz, tmp_path / "sweep", *LAUNCHER, "hydra.launcher.partition=no", seeds=1)
    script = Script("train", *arguments, folder=tmp_path)
    assert script.wait() == 1
    assert "error: SLURM took no job: " in script.output()
    assert "invalid partition" in script.output()
    assert "Traceback" not in script.output()


def _running(sweep: Path) -> list[str]:
    """The sweep's jobs that are running."""
    submissions = json.loads((sweep / "manifest.json").read_text())["submissions"]
    queue = slurm_queue.queued() or {}
    return [job for job in submissions if job in queue and queue[job].state == "RUNNING"]


def _running_with_checkpoint(sweep: Path) -> list[str]:
    """Those of them that have written a checkpoint since they started."""
    if not (sweep / "manifest.json").exists():
        return []
    submissions = json.loads((sweep / "manifest.json").read_text())["submissions"]
    found = []
    for job in _running(sweep):
        lock = sweep / submissions[job][-1] / ".lock"
        checkpoint = sweep / submissions[job][-1] / "checkpoint.pt"
        if checkpoint.exists() and checkpoint.stat().st_mtime > lock.stat().st_mtime:
            found.append(job)
    return found


def _process_of(sweep: Path, job: str) -> int:
    """The process that trains in this job, as its runs' locks say."""
    submissions = json.loads((sweep / "manifest.json").read_text())["submissions"]
    return int((sweep / submissions[job][0] / ".lock").read_text().split()[1])
