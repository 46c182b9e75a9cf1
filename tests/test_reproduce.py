"""The protocol as a program: grids, the choice of a configuration, and all of it, stopped and resumed."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from continual.cli.sweeping import Trained
from continual.errors import ConfigError, DataError
from continual.report.runs import load
from continual.reproduce import app
from continual.reproduce.estimate import Place, estimate, finished, place
from continual.reproduce.grid import Grid, from_sweeper
from continual.reproduce.selection import select
from continual.reproduce.settings import defaults_file, named_agents, settings
from continual.sweep import slurm_queue
from tests.report.conftest import L2_INIT, run_writer
from tests.sweep import slow
from tests.sweep.subprocesses import KILLS, ROOT, Script, ran, until
from tests.sweep.test_slurm import LAUNCHER, leave_no_job, require_slurm, submissions

GRID = Grid({"optimizer.lr": [1e-3, 1e-4], "agent.l2_weight": [1e-2, 1e-3, 1e-4]})
SEEDS = [0, 1, 2]
Totals = dict[tuple[float, float, int], float | str | None]


def write(folder: Path, totals: Totals) -> None:
    """A run for each (step size, strength, seed); None: diverged, a text: another status."""
    writer = run_writer(folder)
    for (lr, weight, seed), total in totals.items():
        status: dict[str, Any] = {"status": "diverged"} if total is None else {}
        if isinstance(total, str):
            status = {"status": None if total == "unfinished" else total}
        writer(
            f"{lr}-{weight}-{seed}",
            seed,
            (total,) * 2 if isinstance(total, float) else (0.99, 0.99),
            nodes={"agent": {**L2_INIT, "l2_weight": weight}, "optimizer": {"_target_": "Adam", "lr": lr}},
            options={"agent": "l2_init"},
            **status,
        )


def totals(means: dict[tuple[float, float], float]) -> Totals:
    """Runs whose mean over SEEDS is as given."""
    return {(*point, seed): mean + (seed - 1) / 100 for point, mean in means.items() for seed in SEEDS}


def chosen(folder: Path) -> tuple[float, float]:
    point = select(load(folder), GRID, SEEDS).point
    return point["optimizer.lr"], point["agent.l2_weight"]


def test_the_largest_mean_over_the_seeds_is_chosen(tmp_path: Path) -> None:
    # (1e-3, 1e-2) has the best single run, (1e-4, 1e-3) the best mean.
    runs = totals({(1e-3, 1e-2): 0.5, (1e-4, 1e-3): 0.6, (1e-3, 1e-3): 0.4})
    runs[1e-3, 1e-2, 2] = 0.7
    write(tmp_path, runs)
    choice = select(load(tmp_path), GRID, SEEDS)
    assert choice.point == {"optimizer.lr": 1e-4, "agent.l2_weight": 1e-3}
    assert choice.total == pytest.approx(0.6)
    assert (choice.eligible, choice.diverged) == (3, 0)
    assert choice.edges == {"optimizer.lr": "smallest"}


@pytest.mark.parametrize("spoilt", [None, "failed", "unfinished"])
def test_a_configuration_without_all_its_seeds_is_not_eligible(tmp_path: Path, spoilt: str | None) -> None:
    runs = totals({(1e-3, 1e-2): 0.9, (1e-4, 1e-3): 0.6})
    runs[1e-3, 1e-2, 1] = spoilt
    write(tmp_path, runs)
    choice = select(load(tmp_path), GRID, SEEDS)
    assert choice.point == {"optimizer.lr": 1e-4, "agent.l2_weight": 1e-3}
    assert (choice.eligible, choice.diverged) == (1, int(spoilt is None))


def test_a_missing_seed_is_not_made_up_for_by_others(tmp_path: Path) -> None:
    runs = totals({(1e-3, 1e-2): 0.9, (1e-4, 1e-3): 0.6})
    del runs[1e-3, 1e-2, 1]
    runs[1e-3, 1e-2, 7] = 0.9
    write(tmp_path, runs)
    assert chosen(tmp_path) == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("tied", "first"),
    [
        ([(1e-3, 1e-4), (1e-4, 1e-2)], (1e-4, 1e-2)),
        ([(1e-4, 1e-2), (1e-4, 1e-4), (1e-4, 1e-3)], (1e-4, 1e-4)),
    ],
)
def test_ties_go_to_the_smaller_step_size_then_strength(
    tmp_path: Path, tied: list[tuple[float, float]], first: tuple[float, float]
) -> None:
    runs = totals(dict.fromkeys(tied, 0.7))
    # The same three totals, met in another order: equal but for rounding.
    for number, point in enumerate(tied):
        for seed in SEEDS:
            runs[(*point, seed)] = (0.1, 0.2, 0.7)[(seed + number) % 3]
    write(tmp_path, runs)
    assert chosen(tmp_path) == first


def test_runs_off_the_grid_play_no_part(tmp_path: Path) -> None:
    write(tmp_path, totals({(1e-2, 1e-2): 0.9, (1e-3, 1e-3): 0.5}))
    assert chosen(tmp_path) == (1e-3, 1e-3)


def test_nothing_eligible_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {(1e-3, 1e-2, 0): 0.5, (1e-3, 1e-3, 0): None})
    with pytest.raises(DataError, match="none of the 6 configurations has a completed run for each"):
        select(load(tmp_path), GRID, SEEDS)


@pytest.mark.parametrize(
    ("point", "edges"),
    [
        ((1e-3, 1e-3), {"optimizer.lr": "largest"}),
        ((1e-4, 1e-2), {"optimizer.lr": "smallest", "agent.l2_weight": "largest"}),
    ],
)
def test_edges(point: tuple[float, float], edges: dict[str, str]) -> None:
    assert GRID.edges(dict(zip(GRID.values, point, strict=True))) == edges


def test_what_a_grid_varies() -> None:
    grid = Grid({"a": [0, 1], "b": [0.5], "c": ["x", "y"]})
    assert grid.varied({"a": 0, "b": 0.5, "c": "y"}) == {"a": 0, "c": "y"}
    assert Grid({"b": [0.5]}).varied({"b": 0.5}) == {"b": 0.5}


def test_inside_a_grid_at_zero_or_with_one_value_there_is_no_edge() -> None:
    grid = Grid({"a": [0, 0.01, 0.1], "b": [1.0], "c": [1, 2, 3], "d": ["x", "y"]})
    assert grid.edges({"a": 0, "b": 1.0, "c": 2, "d": "x"}) == {}


@pytest.mark.parametrize(
    ("values", "edge", "beyond"),
    [
        ([1e-2, 1e-3, 1e-4], "largest", 0.1),
        ([1e-2, 1e-3, 1e-4], "smallest", 1e-5),
        ([625, 1250, 3125], "largest", 7812),
        ([625, 1250, 3125], "smallest", 312),
        ([0, 0.1], "largest", None),
    ],
)
def test_beyond_an_edge(values: list[float], edge: str, beyond: float | None) -> None:
    assert Grid({"k": values}).beyond("k", edge) == beyond


def test_grid_from_the_sweepers_parameters() -> None:
    params = {"seed": "0,1,2", "optimizer.lr": "1e-3,1e-4", "agent.util_type": "weight", "agent.period": 5}
    grid = from_sweeper(params, {"lr": [0.5]})
    assert grid.values == {"optimizer.lr": [0.5], "agent.util_type": ["weight"], "agent.period": [5]}
    assert from_sweeper(params, {}).values["optimizer.lr"] == [0.001, 0.0001]
    with pytest.raises(ConfigError, match=r"grid\.lr"):
        from_sweeper(params, {"lr": []})


def default_settings(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(defaults_file().read_text()), **changes}


def test_the_defaults_are_the_protocol() -> None:
    found = settings(default_settings())
    assert found.sweep_seeds == [0, 1, 2]
    assert found.seeds == list(range(3, 13))
    assert named_agents(found.agents, ["a", "b"]) == ["a", "b"]
    assert named_agents("base", ["a"]) == ["base"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [2, 3]}, "2 is in sweep_seeds as well"),
        ({"seeds": []}, "seeds: give one or more"),
        ({"sweep_seeds": [1, 1]}, "sweep_seeds: give one or more"),
        ({"extend": -1}, "extend: must be"),
        ({"num_tasks": 0}, "num_tasks: must be"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(default_settings(**changes))


@pytest.mark.parametrize(
    ("where", "measured", "given", "told"),
    [
        (Place(False, False, 2), 0, "auto", "about 0:30:00 at 20,000 steps/s (a guess for 2 CPU cores; "),
        (
            Place(False, False, 2),
            1000,
            "auto",
            "about 5:00:00 at 2,000 steps/s (as measured, with 2 at a time)",
        ),
        (Place(False, False, 2), 1000, 500, "about 20:00:00 at 500 steps/s (as given)"),
        (
            Place(False, True, 1),
            0,
            "auto",
            "36,000,000 replica-steps; how long they take on a GPU is known once runs have finished",
        ),
        (
            Place(False, True, 2),
            9000,
            "auto",
            "about 0:33:20 at 18,000 steps/s (as measured, with 2 at a time)",
        ),
        (Place(False, True, 1), 0, 10000, "about 1:00:00 at 10,000 steps/s (as given)"),
        (Place(True, False, 0), 0, "auto", "about 1.0 CPU-core hours at 10,000 steps/s a job (a guess)"),
        (
            Place(True, False, 0, cores=4),
            1000,
            "auto",
            "about 40.0 CPU-core hours at 1,000 steps/s a job (me",
        ),
        (
            Place(True, True, 0, cores=4),
            0,
            "auto",
            "how long they take on the cluster's GPUs, and in its queue",
        ),
        (
            Place(True, True, 0, cores=4),
            10000,
            "auto",
            "about 1.0 GPU hours at 10,000 steps/s a job (measured)",
        ),
    ],
)
def test_the_time_it_takes_as_far_as_known(where: Place, measured: float, given: Any, told: str) -> None:
    said = estimate(36_000_000, where, ["mlp"], measured, given)
    assert told in said
    assert said.endswith(".")
    assert ("depends on the queue" in said or "in its queue" in said) == where.slurm


def test_the_slowest_network_is_what_is_guessed_by() -> None:
    assert "at 390 steps/s" in estimate(1000, Place(False, False, 1), ["mlp", "convnet"], 0, "auto")


def test_where_runs_train(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = {"_target_": "continual.sweep.packed.PackedLauncher", "workers": "auto"}
    assert place(packed, "cpu") == Place(False, False, len(os.sched_getaffinity(0)))
    assert place({**packed, "workers": 3}, "cpu") == Place(False, False, 3)
    slurm = {"_target_": "continual.sweep.slurm.SlurmLauncher", "gpus": 0, "cpus": 2}
    assert place(slurm, "auto") == Place(True, False, 0, cores=2)
    assert place({**slurm, "gpus": 1}, "auto") == Place(True, True, 0, cores=2)
    assert place({**slurm, "gpus": 1}, "cpu").gpu is False

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place(packed, "auto") == Place(False, True, 2)
    assert place(packed, "cuda:1") == Place(False, True, 1)
    assert place(packed, "cpu").gpu is False


def test_finished_runs_and_their_speed(tmp_path: Path) -> None:
    for number, status in enumerate(["completed", "diverged", "failed"]):
        folder = tmp_path / "sweep" / "base" / "lr=1" / f"seed={number}"
        folder.mkdir(parents=True)
        # Three runs of one population, which did 300 replica-steps together in its 6 seconds.
        summary = {"status": status, "steps": 100, "wall_seconds": 6.0, "replicas": 3}
        (folder / "summary.json").write_text(json.dumps(summary))
    assert finished(tmp_path) == (2, 50.0)
    assert finished(tmp_path / "absent") == (0, 0.0)


def arguments(folder: Path, *launcher: str) -> list[str]:
    """Of a reproduction with ten runs and all measures that a report shows; its steps can be slowed down."""
    fixed = [
        *("wandb.mode=disabled", "device=cpu", "engine.compile=false"),
        *("env.steps_per_task=30", "network.hidden_sizes=[9,9]", "metrics.forgetting=true"),
        *("engine.chunk_steps=5", "engine.checkpoint_minutes=0"),
        *(f"agent._target_={slow.TARGET}", "+agent.strength=0"),
    ]
    return [
        *("problem=random_label_digits", "agents=[base]", "num_tasks=2", "sweep_seeds=[0,1]", "seeds=[3,4]"),
        *("grid={lr:[1e-3,1e-2],agent.strength:[0.1,0.2]}", f"dir={folder}"),
        f"overrides={json.dumps([*fixed, *(launcher or ['hydra.launcher.workers=1'])])}",
    ]


def results(folder: Path) -> dict[str, bytes]:
    """The whole report, and the tables of all runs."""
    files = [*(folder / "report").iterdir(), *folder.rglob("tasks.csv"), *folder.rglob("forgetting.csv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@dataclass(frozen=True)
class Undisturbed:
    """A reproduction to which nothing happened: its folder, what it printed, how long it took."""

    folder: Path
    output: str
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    output = Script("reproduce", *arguments(folder / "run"), folder=folder).succeed()
    return Undisturbed(folder / "run", output, time.monotonic() - started)


@pytest.mark.slow
def test_end_to_end(undisturbed: Undisturbed) -> None:
    assert "10 runs, 0 of them finished; about 0:00:00" in undisturbed.output
    report = undisturbed.folder / "report"
    sweep = pd.read_csv(report / "sweep.csv").set_index(["optimizer.lr", "agent.strength"])
    assert sweep["n"].tolist() == [2] * 4
    lr, _ = sweep["score"].idxmax()  # strengths make no difference here
    edge = "largest" if lr == 0.01 else "smallest"
    assert f"base: best lr={lr}, strength=0.1 with " in undisturbed.output
    assert f"of 4 eligible; lr is the {edge} of its grid; strength is the smallest" in undisturbed.output
    final = pd.read_csv(report / "report.csv")
    assert final[["agent", "n"]].to_numpy().tolist() == [["base", 2]]
    assert sorted(str(path.parent) for path in undisturbed.folder.glob("final/*/*/*/tasks.csv")) == [
        str(undisturbed.folder / "final" / "base" / f"lr={lr},strength=0.1" / f"seed={seed}")
        for seed in (3, 4)
    ]
    assert (report / "past_task_accuracy.png").exists()
    assert (report / "sensitivity.png").exists()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the program prints of a plan that it can make."""
    assert app.main([*arguments, "dry_run=true"]) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which the program refuses these arguments."""
    assert app.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "10 runs, 0 of them finished; about 0:00:00" in said(capsys, *arguments(tmp_path / "run"))
    slurm = arguments(tmp_path / "run", "hydra/launcher=slurm")
    assert "600 replica-steps, about 0.0 CPU-core hours" in said(capsys, *slurm)
    assert not (tmp_path / "run").exists()


def readme_lines() -> list[list[str]]:
    """The arguments of each command in the documents that reproduces something here."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(document.read_text() for document in documents)
    lines = re.findall(r"python scripts/reproduce\.py .*", text)
    return [shlex.split(line)[2:] for line in lines if "slurm" not in line]


def test_the_lines_of_the_readme_work(capsys: pytest.CaptureFixture[str]) -> None:
    lines = readme_lines()
    assert len(lines) >= 2
    for line in lines:
        out = said(capsys, *line)
        assert "permuted_mnist with adam, in outputs/reproduce/permuted_mnist-adam" in out
        assert re.search(r"continual_backprop +│ lr .*replacement_rate", out)


def test_the_optimizer_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    adam, sgd = (said(capsys, f"optimizer={name}", "agents=base") for name in ("adam", "sgd"))
    assert "lr 0.001, 0.0001 " in adam
    assert "lr 0.01, 0.001 " in sgd
    assert "permuted_mnist with sgd" in sgd


def test_overrides_of_training_stand_beside_its_own_keys(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "agents=base,l2_init", "env.num_tasks=3", "seeds=range(5,7)", "wandb.mode=disabled")
    assert re.search(r"base .* 1,875 ", out)
    out = said(capsys, "agents=l2_init", "agent.l2_weight=0.5", "engine.precision=float32,bf16")
    assert "l2_weight 0.5; precision float32, bf16" in out


def test_a_grid_of_periods_is_one_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts such as ${steps_of_tasks:2} numbers are made, which name the runs' folders."""
    monkeypatch.chdir(tmp_path)
    small = ("problem=random_label_digits", "num_tasks=1", "env.steps_per_task=3", "sweep_seeds=[0]")
    few = ("optimizer.lr=1e-3", "agent.recycle_threshold=0", "seeds=[1]", "engine.compile=false")
    more = ("wandb.mode=disabled", "hydra.launcher.workers=1", "dir=run")
    assert app.main(["agents=redo", *small, *few, *more]) == 0
    names = {path.parents[1].name for path in (tmp_path / "run" / "sweep").glob("*/*/*/tasks.csv")}
    assert names == {f"lr=0.001,recycle_period={3 * tasks},recycle_threshold=0" for tasks in (1, 2, 5)}


def test_what_names_the_folders_of_a_grid() -> None:
    grid = Grid(
        {"optimizer.lr": [1e-3], "agent.reinit": ["initial", "sample"], "agent.util_type": ["weight"]}
    )
    assert grid.naming == ["optimizer.lr", "agent.reinit"]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("agent=l2", "agent: give agents instead"),
        ("env=permuted_mnist", "env: give problem instead"),
        ("seed=3", "seed: give sweep_seeds and seeds instead"),
        ("optimizer=sdg", "optimizer=sdg: the protocol has adam and sgd"),
        ("problem=permuted", "permuted"),
        ("agents=agnet", "agnet"),
        ("agent.l3=1", "l3"),
        ("extend=a", "extend"),
        ("problem=a,b", "problem takes one value"),
        ("grid={l9:[1]}", "grid.l9: no agent's grid has this key"),
        ("dry_run", "give key=value"),
        ("seeds=[", "seeds=["),
    ],
)
def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argument: str, sentence: str
) -> None:
    assert sentence in error(capsys, "agents=base", f"dir={tmp_path / 'run'}", argument)
    assert not (tmp_path / "run").exists()


def test_detached_jobs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detached = ["hydra/launcher=slurm", "hydra.launcher.detach=true"]
    sentence = error(capsys, *arguments(tmp_path / "run", *detached))
    assert re.search(r"hydra\.launcher\.detach=true: .* cannot be waited for here", sentence)


def test_all_agents_sweeps_are_submitted_before_the_first_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Sequence[str]] = []

    def launch(*overrides: str, **_: Any) -> Trained:
        calls.append(overrides)
        return Trained(tmp_path, [], is_detached=False)

    monkeypatch.setattr(app.api, "launch", launch)
    assert app.main([*arguments(tmp_path / "run", "hydra/launcher=slurm"), "agents=[base,layer_norm]"]) == 1
    assert re.search(r"base: .*: no such folder", capsys.readouterr().err)
    agents_and_last = [(overrides[0], overrides[-1]) for overrides in calls]
    detached = "hydra.launcher.detach=true"
    assert agents_and_last[:2] == [("agent=base", detached), ("agent=layer_norm", detached)]
    assert calls[2][0] == "agent=base"
    assert detached not in calls[2]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run" / "sweep" / "base"
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    assert app.main(arguments(tmp_path / "run")) == 1
    assert str(folder) in capsys.readouterr().err

    assert app.main(arguments(folder)) == 1
    assert capsys.readouterr().err == (
        f"error: the output folder {folder} cannot be written (Not a directory: {folder}); "
        "choose another with dir.\n"
    )


@pytest.mark.slow
def test_killed_at_random_moments(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Each time the command is then given again; what it reports in the end is the same to the last byte."""
    draw, alive = random.Random(0), 0
    report = tmp_path / "run" / "report"
    for kill in range(KILLS):
        how = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[kill % 3]
        in_the_report = kill == KILLS - 1
        seconds = 0 if in_the_report else 0.05
        script = Script("reproduce", *arguments(tmp_path / "run"), folder=tmp_path, step_seconds=seconds)
        if in_the_report:
            until(lambda: report.exists() or script.process.poll() is not None)  # noqa: B023
            time.sleep(draw.uniform(0, 0.05) * undisturbed.seconds)
        else:
            time.sleep(draw.uniform(0.2, 0.9) * undisturbed.seconds)
        alive += script.process.poll() is None
        if kill % 2 and how == signal.SIGKILL:  # its training notices that it is alone
            script.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.process.pid, how)
        script.wait()
    Script("reproduce", *arguments(tmp_path / "run"), folder=tmp_path).succeed()
    assert alive
    assert results(tmp_path / "run") == results(undisturbed.folder)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    """A SLURM, in which no job is left behind."""
    require_slurm()
    yield
    for sweep in (tmp_path / "run").glob("*/*"):
        leave_no_job(sweep)


@pytest.mark.slurm
@pytest.mark.usefixtures("cluster")
def test_killed_with_its_jobs_in_the_queue(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The same command waits for them, submits none again, and reports what it would without SLURM."""
    sweep = tmp_path / "run" / "sweep" / "base"
    held = arguments(tmp_path / "run", *LAUNCHER, "+hydra.launcher.sbatch.hold=true")
    first = Script("reproduce", *held, folder=tmp_path)
    until(lambda: (sweep / "slurm").exists() and submissions(sweep), doing="submit")
    first.kill_all()
    jobs = submissions(sweep)
    assert jobs.keys() <= (slurm_queue.queued() or {}).keys()

    again = Script("reproduce", *arguments(tmp_path / "run", *LAUNCHER), folder=tmp_path)
    until(lambda: "8 runs are in SLURM's queue already" in again.output(), doing="find its jobs")
    for job in jobs:
        ran(["scontrol", "release", job])
    assert "when they are done depends on the queue" in again.succeed()
    assert submissions(sweep) == jobs
    assert results(tmp_path / "run") == results(undisturbed.folder)
