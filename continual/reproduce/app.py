"""The program behind `scripts/reproduce.py`, from top to bottom: plan, sweep, choose, fresh seeds, report."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table as RichTable

from continual.cli.composing import config_folder
from continual.cli.entry import start_hydra
from continual.cli.plain import plain
from continual.config import check_config
from continual.errors import ConfigError, UserError
from continual.reproduce.child import Stopped, train
from continual.reproduce.estimate import Place, estimate, finished, place
from continual.reproduce.grid import Grid, Point, from_sweeper
from continual.reproduce.selection import Choice, select
from continual.reproduce.settings import Settings, named_agents, settings

console = Console(width=1000, highlight=False)


@dataclass(frozen=True)
class Plan:
    """What is to be done for one agent: its grid, its runs' overrides and length in steps, and where."""

    agent: str
    grid: Grid
    overrides: Sequence[str]
    steps: int
    network: str
    place: Place


def main() -> None:
    """Parse the command line and reproduce; exits with 1 on a user's mistake, 130 when stopped."""
    try:
        start_hydra(run, "reproduce")
    except KeyboardInterrupt:
        _say_stopped()


def run(composed: DictConfig) -> None:
    """Reproduce what a composed conf/reproduce.yaml describes."""
    try:
        reproduce(settings(plain(composed)))
    except UserError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        _say_stopped()


def reproduce(chosen: Settings) -> None:
    """Sweep, choose, run with fresh seeds and report; what was done before is left alone.

    Raises UserError for a setting that cannot be used and for training that failed.
    """
    published = published_choices(chosen.optimizer)
    plans = [plan(agent, chosen) for agent in named_agents(chosen.agents, list(published))]
    _check_grid_keys(chosen, plans)
    _announce(plans, chosen)
    if chosen.dry_run:
        return
    choices: dict[str, Choice] = {}
    final: list[Path] = []
    _submit(plans, chosen.sweep_seeds, sweep_folder, chosen)
    for number, one in enumerate(plans, start=1):
        console.print(f"Sweep {number} of {len(plans)}: {one.agent}")
        choices[one.agent] = sweep(one, chosen)
        console.print(f"{one.agent}: {_told(choices[one.agent])}")
    best = [
        replace(one, grid=Grid({key: [value] for key, value in choices[one.agent].point.items()}))
        for one in plans
    ]
    _submit(best, chosen.seeds, final_folder, chosen)
    for number, one in enumerate(best, start=1):
        console.print(f"Fresh seeds {number} of {len(best)}: {one.agent}")
        _train(one, chosen.seeds, final_folder(chosen, one.agent))
        final.append(final_folder(chosen, one.agent) / point_name(choices[one.agent].point))
    _report(chosen, choices, final, published)


def _say_stopped() -> None:
    console.print("Stopped; the same command goes on from here.")
    sys.exit(130)


def plan(agent: str, chosen: Settings) -> Plan:
    """An agent's plan; ConfigError if its runs have no valid config."""
    overrides = [f"agent={agent}", f"env={chosen.problem}", f"optimizer={chosen.optimizer}"]
    overrides += [] if chosen.num_tasks is None else [f"env.num_tasks={chosen.num_tasks}"]
    overrides += chosen.overrides
    config = hydra.compose("train", ["sweep=paper", *overrides], return_hydra_config=True)
    params, launcher = plain(config.hydra.sweeper.params), plain(config.hydra.launcher)
    if launcher.get("detach"):
        raise ConfigError(
            "overrides: with hydra.launcher.detach=true there are no results to choose a configuration by, "
            "because detached jobs cannot be waited for here; leave it out."
        )
    replaced = chosen.grid or {}
    added = {key: OmegaConf.select(config, key) for key in replaced if "." in key and key not in params}
    grid = from_sweeper(
        params | {key: value for key, value in added.items() if value is not None},
        replaced,
    )
    _check([*overrides, *_assignments(grid.points[0]), f"seed={chosen.seeds[0]}"])
    steps = int(config.env.num_tasks) * int(config.env.steps_per_task)
    network = str(config.hydra.runtime.choices["network"])
    return Plan(agent, grid, overrides, steps, network, place(launcher, str(config.device)))


def sweep(one: Plan, chosen: Settings) -> Choice:
    """Train the grid with the sweep's seeds and choose; a grid with its best point at an edge may grow."""
    for growth in range(chosen.extend + 1):
        _train(one, chosen.sweep_seeds, sweep_folder(chosen, one.agent))
        choice = _selected(one, chosen)
        grid = _grown(one, choice) if growth < chosen.extend else one.grid
        if grid == one.grid:
            break
        console.print(f"{one.agent}: {_told(choice)}; the grid grows")
        one = replace(one, grid=grid)
    return choice


def sweep_folder(chosen: Settings, agent: str) -> Path:
    """Where an agent's sweep lies."""
    return Path(chosen.dir) / "sweep" / agent


def final_folder(chosen: Settings, agent: str) -> Path:
    """Where the runs of an agent's best configuration lie."""
    return Path(chosen.dir) / "final" / agent


def point_name(point: Point) -> str:
    """The folder of a configuration's runs, such as `lr=0.001,l2_weight=0.01`; one for each seed is in it."""
    return ",".join(f"{key.rpartition('.')[2]}={point[key]}" for key in _named_keys(point))


def published_choices(optimizer: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The paper's best configurations with an optimizer: agent, env, values (conf/best.yaml)."""
    table: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "best.yaml"))
    if optimizer not in table:
        raise ConfigError(f"optimizer={optimizer}: the protocol has {' and '.join(table)}.")
    found: dict[str, dict[str, dict[str, Any]]] = table[optimizer]
    return found


def _selected(one: Plan, chosen: Settings) -> Choice:
    from continual.report.runs import load

    try:
        return select(load(sweep_folder(chosen, one.agent)), one.grid, chosen.sweep_seeds)
    except UserError as error:
        raise ConfigError(f"{one.agent}: {error}") from error


def _grown(one: Plan, choice: Choice) -> Grid:
    """The grid with a value more at each edge where the best point lies, if such a value is possible."""
    grid = one.grid
    for key, edge in choice.edges.items():
        value = grid.beyond(key, edge)
        if value is None or value in grid.values[key]:
            continue
        try:
            _check([*one.overrides, *_assignments({**choice.point, key: value})])
        except UserError:
            continue
        grid = grid.with_value(key, value)
    return grid


def _submit(
    plans: Sequence[Plan],
    seeds: Sequence[int],
    folder: Callable[[Settings, str], Path],
    chosen: Settings,
) -> None:
    """Where there is a queue, put everything into it before waiting for the first of it."""
    for one in plans:
        if one.place.slurm and len(plans) > 1:
            _train(one, seeds, folder(chosen, one.agent), "hydra.launcher.detach=true")


def _train(one: Plan, seeds: Sequence[int], folder: Path, *more: str) -> None:
    names = [f"{key.rpartition('.')[2]}=${{{key}}}" for key in _named_keys(one.grid.points[0])]
    lists = {key: ",".join(_text(value) for value in values) for key, values in one.grid.values.items()}
    status = train(
        [
            *one.overrides,
            *(f"{key}={values}" for key, values in lists.items()),
            f"seed={','.join(map(str, seeds))}",
            f"hydra.sweep.dir='{folder}'",
            f"hydra.sweep.subdir='{','.join(names)}/seed=${{seed}}'",
            *more,
        ]
    )
    if status:
        raise UserError(
            f"training {one.agent} ended with status {status}; its reason is above, its runs are in "
            f"{folder}, and the same command goes on with what is missing."
        )


def _check(overrides: Sequence[str]) -> None:
    check_config(plain(hydra.compose("train", list(overrides))))


def _check_grid_keys(chosen: Settings, plans: Sequence[Plan]) -> None:
    known = {name for one in plans for key in one.grid.values for name in (key, key.rpartition(".")[2])}
    for key in chosen.grid or {}:
        if key not in known:
            raise ConfigError(
                f"grid.{key}: no agent's grid has this key; known are {', '.join(sorted(known))}."
            )


def _announce(plans: Sequence[Plan], chosen: Settings) -> None:
    """Say what will run, and about how long it takes."""
    table = RichTable("agent", "grid", title_justify="left")
    for head in ("configurations", "runs", "steps a run"):
        table.add_column(head, justify="right")
    for one in plans:
        grid = "; ".join(
            f"{key.rpartition('.')[2]} {', '.join(map(_text, values))}"
            for key, values in one.grid.values.items()
        )
        table.add_row(one.agent, grid, str(len(one.grid.points)), str(_runs(one, chosen)), f"{one.steps:,}")
    console.print(f"{chosen.problem} with {chosen.optimizer}, in {chosen.dir}")
    console.print(table)
    runs = sum(_runs(one, chosen) for one in plans)
    done, measured = finished(Path(chosen.dir))
    steps = sum(_runs(one, chosen) * one.steps for one in plans)
    left = steps * max(0, runs - done) / runs
    told = estimate(left, plans[0].place, [one.network for one in plans], measured, chosen.steps_per_second)
    console.print(f"{runs} runs, {done} of them finished; {told}")


def _runs(one: Plan, chosen: Settings) -> int:
    return len(one.grid.points) * len(chosen.sweep_seeds) + len(chosen.seeds)


def _report(
    chosen: Settings,
    choices: Mapping[str, Choice],
    final: Sequence[Path],
    published: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> None:
    from continual.report.cli import write_report
    from continual.report.content import Section, Table

    rows = []
    for agent, choice in choices.items():
        values = published.get(agent, {}).get(chosen.problem, {})
        edges = [f"{key.rpartition('.')[2]} ({edge})" for key, edge in choice.edges.items()]
        rows.append(
            [
                agent,
                _words(choice.varied),
                ", ".join(f"{key}={_text(value)}" for key, value in values.items()) or "-",
                f"{choice.total:.3f}",
                str(choice.eligible),
                str(choice.diverged),
                ", ".join(edges) or "none",
            ]
        )
    head = ["agent", "chosen", "published choice", "mean", "eligible", "diverged", "at the grid's edge"]
    section = Section(
        "Choice of configurations",
        (
            f"Each agent's grid ran with seeds {', '.join(map(str, chosen.sweep_seeds))}; the configuration "
            "of largest total average online accuracy then ran with seeds "
            f"{', '.join(map(str, chosen.seeds))}, which all results below are from. A configuration with a "
            "diverged or missing run is not eligible; of equals the smaller step size is chosen. Where the "
            "best value is the smallest or largest of its grid, a wider grid may do better.",
        ),
        (),
        (Table("The best of each agent's grid", head, rows, names=3),),
    )
    sweeps = [sweep_folder(chosen, agent) for agent in choices]
    write_report(final, Path(chosen.dir) / "report", sweep=sweeps, by=["agent"], before=[section])


def _told(choice: Choice) -> str:
    edges = "".join(
        f"; {key.rpartition('.')[2]} is the {edge} of its grid" for key, edge in choice.edges.items()
    )
    return f"best {_words(choice.varied)} with {choice.total:.4f}, of {choice.eligible} eligible{edges}"


def _words(point: Point) -> str:
    return ", ".join(f"{key.rpartition('.')[2]}={_text(value)}" for key, value in point.items())


def _assignments(point: Point) -> list[str]:
    return [f"{key}={_text(value)}" for key, value in point.items()]


def _named_keys(point: Point) -> list[str]:
    return [key for key, value in point.items() if not isinstance(value, str)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
