"""A sweep from the command line: its folders, populations, results and failures."""

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.config import Replica
from continual.sweep.launcher import Launcher
from continual.sweep.manifest import Manifest
from continual.sweep.stopping import StopRequests
from tests.command_line import CommandLine, written
from tests.sweep.faulty import FATAL_STEP, mend

IN_SWEEP = ("hydra.sweep.dir=sweep", "hydra.launcher.workers=1")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_a_grid_of_16_jobs_is_2_populations_of_8(train: CommandLine, workplace: Path) -> None:
    grid = ("seed=0,1", "optimizer.lr=1e-3,1e-4", "agent=l2_init,l2", "agent.l2_weight=1e-2,1e-3")
    finished = train("-m", *IN_SWEEP, *grid)
    assert finished.code == 0
    assert "16 runs, 0 of them finished before" in finished.out
    assert "training 2 populations in 1 process" in finished.out

    sweep = workplace / "sweep"
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == set(map(str, range(16)))
    assert (sweep / "multirun.yaml").exists()
    jobs_in_order = itertools.product((0, 1), (1e-3, 1e-4), ("l2_init", "l2"), (1e-2, 1e-3))
    for number, (seed, lr, agent, l2_weight) in enumerate(jobs_in_order):
        folder = sweep / str(number)
        config = read_yaml(folder / ".hydra" / "config.yaml")
        assert config["seed"] == seed
        assert config["optimizer"]["lr"] == lr
        assert config["agent"]["_target_"].split(".")[2] == agent
        assert config["agent"]["l2_weight"] == l2_weight
        hydra = read_yaml(folder / ".hydra" / "hydra.yaml")["hydra"]
        assert hydra["runtime"]["choices"]["agent"] == agent
        assert hydra["job"]["num"] == number
        assert hydra["runtime"]["output_dir"] == str(folder)
        overrides = read_yaml(folder / ".hydra" / "overrides.yaml")
        assert {f"seed={seed}", f"agent={agent}", f"agent.l2_weight={l2_weight}"} < set(overrides)
        assert summary(folder)["status"] == "completed"
        assert summary(folder)["replicas"] == 8

    # A job's frozen config is all that its run needs, and alone it gives the same results.
    for number in (5, 10):
        alone = read_yaml(sweep / str(number) / ".hydra" / "overrides.yaml")
        assert train("hydra.run.dir=alone", *alone).code == 0
        assert summary(workplace / "alone")["replicas"] == 1
        tables = [folder / "tasks.csv" for folder in (workplace / "alone", sweep / str(number))]
        assert tables[0].read_bytes() == tables[1].read_bytes()
        (workplace / "alone").rename(workplace / f"alone-{number}")


def test_finished_runs_are_left_alone_and_a_grid_can_grow(train: CommandLine, workplace: Path) -> None:
    sweep = workplace / "sweep"
    assert train("-m", *IN_SWEEP, "seed=0,1").code == 0
    before = written(sweep)

    again = train("-m", *IN_SWEEP, "seed=0,1")
    assert again.code == 0
    assert "2 runs, 2 of them finished before" in again.out
    assert written(sweep) == before

    grown = train("-m", *IN_SWEEP, "seed=0,1,2,3")
    assert grown.code == 0
    assert "4 runs, 2 of them finished before" in grown.out
    assert "training 1 population" in grown.out
    after = written(sweep)
    assert {path: after[path] for path in before} == before
    assert [summary(sweep / str(number))["replicas"] for number in range(4)] == [2, 2, 2, 2]


def test_a_fixed_value_may_belong_to_swept_options_only(train: CommandLine, workplace: Path) -> None:
    finished = train("-m", *IN_SWEEP, "agent=l2,l2_init", "agent.l2_weight=0.25", "seed=3")
    assert finished.code == 0
    for number in "01":
        config = read_yaml(workplace / "sweep" / number / ".hydra" / "config.yaml")
        assert (config["agent"]["l2_weight"], config["seed"]) == (0.25, 3)


@pytest.mark.parametrize(
    "typed",
    ["hydra.run.dir=folder", "-m hydra.launcher.workers=1 hydra.sweep.dir=. hydra.sweep.subdir=folder"],
)
def test_a_config_may_speak_of_hydra(train: CommandLine, workplace: Path, typed: str) -> None:
    name = "wandb.name=${hydra:job.name} in ${hydra:runtime.output_dir}"
    assert train(*typed.split(), name).code == 0
    if "-m" in typed:  # frozen
        config = read_yaml(workplace / "folder" / ".hydra" / "config.yaml")
        assert config["wandb"]["name"] == f"train in {workplace / 'folder'}"


def test_folders_may_be_named_after_overrides(train: CommandLine, workplace: Path) -> None:
    named = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    exclude = "hydra.job.config.override_dirname.exclude_keys=[device,wandb.mode,engine.compile,env/dataset]"
    assert train("-m", *IN_SWEEP, named, exclude, "seed=0,1").code == 0
    folders = {path.parent.name for path in (workplace / "sweep").rglob("summary.json")}
    assert [re.search(r"seed=\d", folder)[0] for folder in sorted(folders)] == ["seed=0", "seed=1"]  # type: ignore[index]


@pytest.mark.parametrize(("own", "replicas"), [("hydra/launcher=basic", 1), ("hydra/sweeper=basic", 2)])
def test_hydras_own_plugins_work_as_well(
    train: CommandLine, workplace: Path, own: str, replicas: int
) -> None:
    workers = () if "launcher" in own else ("hydra.launcher.workers=1",)
    assert train("-m", own, *workers, "hydra.sweep.dir=sweep", "seed=0,1").code == 0
    assert [summary(workplace / "sweep" / number)["replicas"] for number in "01"] == [replicas] * 2


# What goes wrong


@pytest.fixture
def faulty(workplace: Path) -> Sequence[str]:
    """The arguments that make `agent=faulty` known; its diaries lie beside the sweep."""
    (workplace / "agent").mkdir()
    (workplace / "agent" / "faulty.yaml").write_text(
        f"_target_: tests.sweep.faulty.Faulty\nfate: fine\ndiary: {workplace / 'diary'}\n"
    )
    return ("--config-dir=.", "agent=faulty", "engine.chunk_steps=5", "engine.checkpoint_minutes=0")


def test_workers_that_die_and_raise(train: CommandLine, faulty: Sequence[str], workplace: Path) -> None:
    """An error fails its own population; a worker that dies is replaced, and its population tried again."""
    fates = "agent.fate=fine,dies_once,dies_always,raises"
    finished = train("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=2", *faulty, fates, "seed=0,1")
    assert "training 4 populations in 2 processes" in finished.out
    assert "4 of 8 runs failed" in finished.out
    assert finished.code == 1
    assert finished.err.splitlines()[-1] == "error: sweep/4: its process died twice (exit code -9)."
    assert "Error executing job" not in finished.err

    folders = [workplace / "sweep" / str(number) for number in range(8)]
    summaries = [summary(folder) for folder in folders]
    assert [one["status"] for one in summaries] == ["completed"] * 4 + ["failed"] * 4
    for one in summaries[4:6]:
        assert one["error"] == "its process died twice (exit code -9)."
    for one in summaries[6:]:
        assert "RuntimeError: this agent raises on purpose" in one["error"]
        assert one["replicas"] == 2

    # The second life began at the checkpoint after step 10.
    done = 10
    assert len((workplace / "diary.dies_once").read_text()) == FATAL_STEP + 40 - done
    for seed in (0, 1):
        assert train(f"hydra.run.dir=alone-{seed}", *faulty, f"seed={seed}").code == 0
        alone = (workplace / f"alone-{seed}" / "tasks.csv").read_bytes()
        assert (folders[seed] / "tasks.csv").read_bytes() == alone
        assert (folders[2 + seed] / "tasks.csv").read_bytes() == alone


def test_an_error_in_this_process_fails_its_population_only_and_can_be_mended(
    train: CommandLine, faulty: Sequence[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("-m", *IN_SWEEP, *faulty, "agent.fate=raises,fine")
    finished = train(*command)
    assert finished.code == 1
    assert "1 of 2 runs failed" in finished.out
    assert "error: sweep/0: Traceback" in finished.err
    assert finished.err.endswith("RuntimeError: this agent raises on purpose\n\n")
    failed, fine = (summary(workplace / "sweep" / number) for number in "01")
    assert (failed["status"], fine["status"]) == ("failed", "completed")

    mend("raises", monkeypatch)
    again = train(*command)
    assert again.code == 0
    assert "2 runs, 1 of them finished before" in again.out
    assert summary(workplace / "sweep" / "0")["status"] == "completed"
    tables = [(workplace / "sweep" / number / "tasks.csv").read_bytes() for number in "01"]
    assert tables[0] == tables[1]


class Cancelling(Launcher):
    """Ends no run: SLURM would say the same of a job that was cancelled."""

    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> dict[Path, str]:
        return {run.folder: "its SLURM job 12_0 was cancelled." for run in runs}


def test_runs_that_were_cancelled_are_not_called_failed(train: CommandLine, workplace: Path) -> None:
    (workplace / "hydra" / "launcher").mkdir(parents=True)
    (workplace / "hydra" / "launcher" / "mine.yaml").write_text(f"_target_: {__name__}.Cancelling\n")
    finished = train("-m", "--config-dir=.", "hydra/launcher=mine", "hydra.sweep.dir=sweep", "seed=0,1")
    assert finished.code == 1
    assert "2 of 2 runs did not end: its SLURM job 12_0 was cancelled. To resume: " in finished.out
    assert "failed" not in finished.out
    assert finished.err == "error: sweep/0: its SLURM job 12_0 was cancelled.\n"
