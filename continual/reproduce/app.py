"""The program behind `scripts/reproduce.py`, from top to bottom: plan, sweep, choose, fresh seeds, report."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table as RichTable

from continual import api
from continual.cli.composing import Composed, Composer, config_folder
from continual.cli.grammar import read_settings
from continual.config import check_config, num_steps
from continual.errors import ConfigError, Stopped, UserError
from continual.reproduce.estimate import Place, estimate, finished, place
from continual.reproduce.grid import Grid, Point, from_sweeper
from continual.reproduce.selection import Choice, select
from continual.reproduce.settings import Settings, defaults_file, named_agents, read
from continual.sweep.folders import check_writable

console = Console(width=1000, highlight=False, markup=False)


@dataclass(frozen=True)
class Plan:
    """What is to be done for one agent: its grid, its runs' overrides and length in steps, and where.

    `composer` gives the configs of all plans of a command.
    """

    agent: str
    grid: Grid
    overrides: Sequence[str]
    steps: int
    network: str
    place: Place
    composer: Composer


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and reproduce; 1 after a user's mistake, 130 when stopped, else 0."""
    parser = argparse.ArgumentParser(
        description="The published protocol: a sweep for each agent, the best configuration, fresh seeds, a "
        "report. The same command resumes where it was stopped.",
        epilog=defaults_file().read_text(encoding="utf-8"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="a key of the list below, or an override for training",
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own options")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        reproduce(read(options.settings), options.config_dir)
    except (KeyboardInterrupt, Stopped):
        console.print("Stopped; the same command resumes from here.")
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def reproduce(chosen: Settings, own_folder: Path | None = None) -> None:
    """Sweep, choose, run with fresh seeds and report; what was done before is left alone.

    `own_folder` holds options of the user's own.

    Raises UserError for a setting that cannot be used and for training that failed.
    """
    published = published_choices(chosen.optimizer)
    composer = Composer(own_folder=own_folder)
    with composer.started():
        plans = [plan(agent, chosen, composer) for agent in named_agents(chosen.agents, list(published))]
    _check_grid_keys(chosen, plans)
    _announce(plans, chosen)
    if chosen.dry_run:
        return
    check_writable(Path(chosen.dir), "dir")
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


def plan(agent: str, chosen: Settings, composer: Composer) -> Plan:
    """An agent's plan; ConfigError if its runs have no valid config."""
    overrides = [f"agent={agent}", f"env={chosen.problem}", f"optimizer={chosen.optimizer}"]
    overrides += [] if chosen.num_tasks is None else [f"env.num_tasks={chosen.num_tasks}"]
    replaced = dict(chosen.grid or {})
    swept = {}
    for text, one in zip(chosen.overrides, read_settings(chosen.overrides), strict=True):
        if one.several:
            swept[one.key] = one.value
        else:
            overrides.append(text)
    composed = composer.run(["sweep=paper", *overrides])
    if composed.launcher.get("detach"):
        raise ConfigError(
            "hydra.launcher.detach=true: there are no results to choose a configuration by, because detached "
            "jobs cannot be waited for here; leave it out."
        )
    # A value that is given for a key of the grid is the only one that is tried.
    for one in read_settings(chosen.overrides):
        if one.key in composed.params and not one.several:
            swept[one.key] = [one.value]
    added = {
        key: values
        for key, values in {**replaced, **swept}.items()
        if "." in key and key not in composed.params and _has(composed.config, key)
    }
    grid = from_sweeper({**composed.params, **dict.fromkeys(added, 0)}, {**replaced, **swept})
    grid = _resolved(grid, overrides, composer)
    one_of = Plan(agent, grid, overrides, 0, composed.choices["network"], _place(composed), composer)
    config = _check(one_of, {**grid.points[0], "seed": chosen.seeds[0]})
    return replace(one_of, steps=num_steps(config))


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
    alone = Grid({key: [value] for key, value in point.items()})
    return ",".join(f"{key.rpartition('.')[2]}={point[key]}" for key in alone.naming)


def published_choices(optimizer: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The paper's best configurations with an optimizer: agent, env, values (conf/best.yaml)."""
    table: Any = yaml.safe_load((config_folder() / "best.yaml").read_text(encoding="utf-8"))
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
            _check(one, {**choice.point, key: value})
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
    """Train a plan's grid with these seeds; UserError if a run has no result in the end."""
    names = [f"{key.rpartition('.')[2]}=${{{key}}}" for key in one.grid.naming]
    lists = {key: ",".join(_text(value) for value in values) for key, values in one.grid.values.items()}
    trained = api.launch(
        *one.overrides,
        *(f"{key}={values}" for key, values in lists.items()),
        f"seed={','.join(map(str, seeds))}",
        f"hydra.sweep.subdir='{','.join(names)}/seed=${{seed}}'",
        *more,
        folder=folder,
        config_dir=one.composer.own_folder,
    )
    if trained.failed:
        failed, every = trained.failed, len(trained.results)
        reason = str(failed[0].reason).strip().splitlines()[-1]
        raise UserError(
            f"training {one.agent}: {len(failed)} of {every} runs did not finish, such as "
            f"{failed[0].job.run.folder} ({reason}); the same command resumes with what is missing."
        )


def _check(one: Plan, point: Point) -> Mapping[str, Any]:
    """The config of a point of a plan's grid; ConfigError if it cannot be trained."""
    config = one.composer.run([*one.overrides, *_assignments(point)]).config
    check_config(config)
    return config


def _resolved(grid: Grid, overrides: Sequence[str], composer: Composer) -> Grid:
    """The grid with numbers where it has texts that stand for them, such as `${steps_of_tasks:2}`."""

    def resolved(key: str, value: Any) -> Any:
        if not isinstance(value, str) or "${" not in value:
            return value
        return _node(composer.run([*overrides, f"{key}={value}"]).config, key)

    return Grid({key: [resolved(key, value) for value in values] for key, values in grid.values.items()})


def _has(config: Mapping[str, Any], key: str) -> bool:
    try:
        _node(config, key)
    except LookupError:
        return False
    return True


def _node(config: Mapping[str, Any], key: str) -> Any:
    """What a config has at a dotted key; LookupError if it does not have it."""
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, Mapping):
            raise LookupError(key)
        node = node[name]
    return node


def _place(composed: Composed) -> Place:
    return place(composed.launcher, str(composed.config["device"]))


def _check_grid_keys(chosen: Settings, plans: Sequence[Plan]) -> None:
    known = {name for one in plans for key in one.grid.values for name in (key, key.rpartition(".")[2])}
    swept = [one.key for one in read_settings(chosen.overrides) if one.several]
    for key in [*(chosen.grid or {}), *swept]:
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
            "of the best score then ran with seeds "
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


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
