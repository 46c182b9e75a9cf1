"""On a real SLURM (scripts/slurm-cluster.sh): the same results as here, whatever happens to the jobs."""

import contextlib
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
from continual.tracking.lock import holder
from continual.tracking.run_folder import read_summary
from tests.sweep import slow
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


def require_slurm() -> None:
    """Skip where there is no SLURM, unless it is said that there must be."""
    answers = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0
    if not answers:
        if os.environ.get("CONTINUAL_REQUIRE_SLURM"):
            pytest.fail("there is no SLURM here, and CONTINUAL_REQUIRE_SLURM is set")
        pytest.skip("there is no SLURM here; scripts/slurm-cluster.sh up starts one")


def leave_no_job(sweep: Path) -> None:
    """Cancel what is in the queue still."""
    if (sweep / "manifest.json").exists():
        jobs = submissions(sweep)
        slurm_queue.cancel(jobs)
        until(lambda: not jobs.keys() & (slurm_queue.queued() or {}).keys())


def submissions(sweep: Path) -> dict[str, list[str]]:
    """The sweep's jobs, each with its runs."""
    return dict(json.loads((sweep / "manifest.json").read_text())["submissions"])


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path) -> Iterator[None]:
    """A SLURM, in which no job is left behind."""
    require_slurm()
    yield
    leave_no_job(tmp_path / "sweep")


@pytest.fixture(scope="module")
def local(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the sweep as trained on this machine."""
    folder = tmp_path_factory.mktemp("local")
    arguments = sweep_arguments(npz, folder / "sweep", "hydra.launcher.workers=1", seeds=SEEDS)
    Script("train", *arguments, folder=folder).succeed()
    return tables(folder / "sweep", 2 * SEEDS)


@pytest.fixture(scope="module")
def out_of_time(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Script]]:
    """A sweep of one job that reaches its time limit; it begins with the first test, as it has to wait.

    SLURM looks at its clock every 30 seconds: it signals 20 to 50 seconds after the job's start. Only in its
    first life is the job slow.
    """
    require_slurm()
    folder = tmp_path_factory.mktemp("out_of_time")
    arguments = sweep_arguments(npz, folder / "sweep", *LAUNCHER, seeds=2)
    limits = ("network.hidden_sizes=[9,9]", "hydra.launcher.time_minutes=1")
    setup = f"hydra.launcher.setup=['[ -z \"$SLURM_RESTART_COUNT\" ] || export {slow.SECONDS}=0']"
    sbatch = "hydra.launcher.sbatch={comment: plasticity}"
    script = Script("train", *arguments, *limits, setup, sbatch, folder=folder, step_seconds=1)
    yield folder / "sweep", script
    if script.process.poll() is None:
        script.kill_all()
    leave_no_job(folder / "sweep")


@pytest.mark.usefixtures("out_of_time")
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

    jobs = submissions(sweep)
    assert sorted(map(len, jobs.values())) == [6, 6, 6, 6]
    arrays = {job.partition("_")[0] for job in jobs}
    assert len(arrays) == (2 if slurm_queue.longest_array() < 4 else 1)

    again = Script("train", *arguments, folder=tmp_path).succeed()
    assert "24 runs, 24 of them finished before" in again
    assert "to SLURM" not in again


def test_a_job_that_cannot_be_submitted(npz: Path, tmp_path: Path) -> None:
    arguments = sweep_arguments(npz, tmp_path / "sweep", *LAUNCHER, "hydra.launcher.partition=no", seeds=1)
    script = Script("train", *arguments, folder=tmp_path)
    assert script.wait() == 1
    assert "error: SLURM took no job: " in script.output()
    assert "invalid partition" in script.output()
    assert "Traceback" not in script.output()


def test_a_search(npz: Path, tmp_path: Path) -> None:
    """Each batch of trials is a job, whose results are waited for."""
    pytest.importorskip("optuna", reason="Optuna is not installed: bash scripts/setup.sh optuna")
    sweep = tmp_path / "sweep"
    how = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2")
    space = ("network.hidden_sizes=[9,9]", "+agent.strength=interval(0,1)")
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, *how, *space, seeds=2)
    out = Script("train", *arguments, folder=tmp_path).succeed()
    assert list(submissions(sweep).values()) == [["0", "1", "2", "3"], ["4", "5"]]
    tables(sweep, 6)
    totals = [read_summary(sweep / str(run))["total_average_online_accuracy"] for run in range(6)]  # type: ignore[index]
    best = max((one + other) / 2 for one, other in zip(totals[::2], totals[1::2], strict=True))
    assert f"the best of 3 trials: {best:.4f} with +agent.strength=" in out


def test_a_time_limit(out_of_time: tuple[Path, Script], local: dict[str, bytes]) -> None:
    """The job is told before its end, writes checkpoints and is queued again; setup and options hold."""
    sweep, script = out_of_time
    script.succeed()
    assert tables(sweep, 2) == {run: local[run] for run in "01"}
    (job,) = submissions(sweep)
    # The results are all there before the job's process has ended.
    until(lambda: "JobState=COMPLETED" in ran(["scontrol", "show", "job", job]), seconds=30)
    shown = ran(["scontrol", "show", "job", job])
    for what in ("TimeLimit=00:01:00", "Comment=plasticity"):
        assert what in shown
    assert re.search(r"Restarts=[1-9]", shown)
    log = (sweep / "slurm" / f"{job}_0_log.out").read_text()
    assert "asked to make room: the checkpoints are written" in log
    assert "resuming from task" in log


def test_detached(npz: Path, tmp_path: Path, local: dict[str, bytes]) -> None:
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, "hydra.launcher.detach=true", seeds=SEEDS)
    out = Script("train", *arguments, folder=tmp_path, step_seconds=0.02).succeed()
    assert f"sweep.py status|wait|cancel {sweep}" in out
    assert not list(sweep.glob("*/summary.json"))
    assert len(submissions(sweep).keys() & (slurm_queue.queued() or {}).keys()) == 4

    status = Script("sweep", "status", str(sweep), folder=tmp_path).succeed()
    assert re.search(r"24 +(pending|running|not started)", status) or "running" in status
    Script("sweep", "wait", str(sweep), "--trust", slow.__name__, folder=tmp_path).succeed()
    assert tables(sweep, 2 * SEEDS) == local
    assert re.search(r"24 +completed", Script("sweep", "status", str(sweep), folder=tmp_path).succeed())


def test_whatever_happens_to_its_jobs(npz: Path, tmp_path: Path, local: dict[str, bytes]) -> None:
    sweep = tmp_path / "sweep"
    # With a look around after every step, which takes a second, nobody waits long for them.
    arguments = sweep_arguments(npz, sweep, *LAUNCHER, "engine.chunk_steps=1", seeds=SEEDS)
    script = Script("train", *arguments, folder=tmp_path, step_seconds=1)
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="start")

    # One is told that its time is up, one is put back, one is killed, one loses its node.
    one, two, three, four = _running_with_checkpoint(sweep)
    ran(["scancel", "--signal=USR2", one])
    ran(["scontrol", "requeue", two])
    os.kill(_process_of(sweep, three), signal.SIGKILL)
    node, daemons = slurm_queue.queued()[four].reason, _daemons_of(four)  # type: ignore[index]
    assert daemons
    ran(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
    # A node that has one left is drained when it is given the job again.
    until(lambda: not any(path.exists() for path in daemons), doing="node down")
    ran(["scontrol", "update", f"nodename={node}", "state=resume"])
    until(lambda: three not in (slurm_queue.queued() or {three}), doing="killed")
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="all back")

    # All have to make room for jobs of higher priority.
    ran(["sbatch", "-p", "high", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "srun sleep 2"])
    until(lambda: not _running(sweep), doing="preempted")
    until(lambda: len(_running_with_checkpoint(sweep)) == 4, doing="all back again")

    # All are cancelled, which is no failure: the sweep is resumed, and not slowed down any more. One was just
    # asked to make room, and must not put itself back into the queue.
    one = _running(sweep)[0]
    ran(["scancel", "--signal=USR2", one])
    ran(["scancel", one])
    Script("sweep", "cancel", str(sweep), folder=tmp_path).succeed()
    assert script.wait() == 1, script.output()
    assert "was cancelled" in script.output()
    assert not list(sweep.glob("*/summary.json"))
    progress = {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("*/checkpoint.pt")}
    assert len(progress) == 2 * SEEDS
    Script("sweep", "resume", str(sweep), "--trust", slow.__name__, folder=tmp_path).succeed()
    assert tables(sweep, 2 * SEEDS) == local
    assert "resuming from task" in "".join(path.read_text() for path in sweep.glob("slurm/*.out"))


def _running(sweep: Path) -> list[str]:
    """The sweep's jobs that are running."""
    queue = slurm_queue.queued() or {}
    return [job for job in submissions(sweep) if job in queue and queue[job].state == "RUNNING"]


def _running_with_checkpoint(sweep: Path) -> list[str]:
    """Those of them that have written a checkpoint since they started."""
    if not (sweep / "manifest.json").exists():
        return []
    populations = submissions(sweep)
    found = []
    for job in _running(sweep):
        folder = sweep / populations[job][-1]
        checkpoint = folder / "checkpoint.pt"
        # A job that is queued again runs for a while before it takes its lock anew.
        if holder(folder) is None or not checkpoint.exists():
            continue
        if checkpoint.stat().st_mtime > (folder / ".lock").stat().st_mtime:
            found.append(job)
    return found


def _process_of(sweep: Path, job: str) -> int:
    """The process that trains in this job, as its runs' locks say."""
    return int((sweep / submissions(sweep)[job][0] / ".lock").read_text().split()[1])


def _daemons_of(job: str) -> list[Path]:
    """SLURM's own processes that watch over this job, where they are in /proc."""
    number = re.search(r"JobId=(\d+)", ran(["scontrol", "show", "job", job]))[1]  # type: ignore[index]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_text().startswith(f"slurmstepd: [{number}."):
                found.append(path)
    return found
