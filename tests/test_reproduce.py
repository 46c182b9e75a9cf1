"""The protocol as a program: grids, the choice of a configuration, and all of it, stopped and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from continual.errors import ConfigError, DataError
from continual.report.runs import load_runs
from continual.reproduce.grid import Grid, from_sweeper
from continual.reproduce.selection import select
from continual.reproduce.settings import named_agents, settings
from continual.sweep.entry import config_folder
from tests.report.conftest import L2_INIT, run_writer

ROOT = Path(__file__).parents[1]
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
    point = select(load_runs([folder]), GRID, SEEDS).point
    return point["optimizer.lr"], point["agent.l2_weight"]


def test_the_largest_mean_over_the_seeds_is_chosen(tmp_path: Path) -> None:
    # (1e-3, 1e-2) has the best single run, (1e-4, 1e-3) the best mean.
    runs = totals({(1e-3, 1e-2): 0.5, (1e-4, 1e-3): 0.6, (1e-3, 1e-3): 0.4})
    runs[1e-3, 1e-2, 2] = 0.7
    write(tmp_path, runs)
    choice = select(load_runs([tmp_path]), GRID, SEEDS)
    assert choice.point == {"optimizer.lr": 1e-4, "agent.l2_weight": 1e-3}
    assert choice.total == pytest.approx(0.6)
    assert (choice.eligible, choice.diverged) == (3, 0)
    assert choice.edges == {"optimizer.lr": "smallest"}


@pytest.mark.parametrize("spoilt", [None, "failed", "unfinished"])
def test_a_configuration_without_all_its_seeds_is_not_eligible(tmp_path: Path, spoilt: str | None) -> None:
    runs = totals({(1e-3, 1e-2): 0.9, (1e-4, 1e-3): 0.6})
    runs[1e-3, 1e-2, 1] = spoilt
    write(tmp_path, runs)
    choice = select(load_runs([tmp_path]), GRID, SEEDS)
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
    for place, point in enumerate(
        tied
    ):  # the same three totals, met in another order: equal but for rounding
        for seed in SEEDS:
            runs[(*point, seed)] = (0.1, 0.2, 0.7)[(seed + place) % 3]
    write(tmp_path, runs)
    assert chosen(tmp_path) == first


def test_runs_off_the_grid_play_no_part(tmp_path: Path) -> None:
    write(tmp_path, totals({(1e-2, 1e-2): 0.9, (1e-3, 1e-3): 0.5}))
    assert chosen(tmp_path) == (1e-3, 1e-3)


def test_nothing_eligible_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {(1e-3, 1e-2, 0): 0.5, (1e-3, 1e-3, 0): None})
    with pytest.raises(DataError, match="none of the 6 configurations has a completed run for each"):
        select(load_runs([tmp_path]), GRID, SEEDS)


@pytest.mark.parametrize(
    ("point", "edges"),
    [
        ((1e-3, 1e-3), {"optimizer.lr": "largest"}),
        ((1e-4, 1e-2), {"optimizer.lr": "smallest", "agent.l2_weight": "largest"}),
    ],
)
def test_edges(point: tuple[float, float], edges: dict[str, str]) -> None:
    assert GRID.edges(dict(zip(GRID.values, point, strict=True))) == edges


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
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        values = OmegaConf.to_container(compose("reproduce"), resolve=True)
    assert isinstance(values, dict)
    return {**{str(key): value for key, value in values.items()}, **changes}


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


def command(folder: Path, *more: str) -> list[str]:
    fixed = ["wandb.mode=disabled", "engine.compile=false", "env.steps_per_task=30", "network.hidden_size=9"]
    fixed += ["device=cpu", "hydra.launcher.workers=1"]
    return [
        *(sys.executable, str(ROOT / "scripts" / "reproduce.py"), "problem=random_label_digits"),
        *("agents=[l2_init]", "num_tasks=2", "sweep_seeds=[0,1]", "seeds=[3,4]", f"dir={folder}"),
        *("grid={lr:[1e-3],l2_weight:[1e-2,1e-3]}", f"overrides={json.dumps(fixed)}", *more),
    ]


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "report").iterdir())}


@pytest.mark.slow
def test_end_to_end_and_resumed(tmp_path: Path) -> None:
    dry = subprocess.run(command(tmp_path / "a", "dry_run=true"), capture_output=True, text=True, check=True)
    assert "6 runs, 0 of them finished; about 0:00:00" in dry.stdout
    assert not (tmp_path / "a" / "sweep").exists()

    whole = subprocess.run(command(tmp_path / "a"), capture_output=True, text=True, check=True)
    assert "l2_init: best lr=0.001, l2_weight=" in whole.stdout
    sweep = pd.read_csv(tmp_path / "a" / "report" / "sweep.csv").set_index("agent.l2_weight")
    best = sweep["total_average_online_accuracy"].idxmax()
    assert {path.name for path in (tmp_path / "a" / "final" / "l2_init").iterdir() if path.is_dir()} >= {
        f"lr=0.001,l2_weight={best}"
    }
    report = pd.read_csv(tmp_path / "a" / "report" / "report.csv")
    assert report[["agent", "n"]].to_numpy().tolist() == [["l2_init", 2]]
    assert f"l2_weight ({'largest' if best == 0.01 else 'smallest'})" in whole.stdout or (
        f"l2_weight is the {'largest' if best == 0.01 else 'smallest'}" in whole.stdout
    )

    process = subprocess.Popen(command(tmp_path / "b"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "b").glob("sweep/*/*/*/.hydra")):
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(command(tmp_path / "b"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert results(tmp_path / "a") == results(tmp_path / "b")
