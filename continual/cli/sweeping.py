"""A sweep, from overrides to results: composed and checked as a whole, then trained in a locked folder.

The command line and the Python API both call `train_sweep`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from continual import schema
from continual.cli import foreign
from continual.cli.checks import check_hydra, check_mode
from continual.cli.composing import Composer, resolving
from continual.cli.jobs import Jobs
from continual.cli.output import StartLog, locked, no_log, output_folder, surroundings
from continual.cli.plain import plain
from continual.cli.sweep import Result, Sweep, Sweeper
from continual.errors import ConfigError
from continual.sweep import launcher
from continual.sweep.folders import check_writable

_FOLDER = "hydra.sweep.dir"


@dataclass(frozen=True)
class Trained:
    """A sweep that is over, or handed to a queue: its folder, and what became of its jobs."""

    folder: Path
    results: list[Result]
    is_detached: bool

    @property
    def failed(self) -> list[Result]:
        """Those that did not finish."""
        return [result for result in self.results if result.reason is not None]


def train_sweep(composer: Composer, overrides: Sequence[str], start_log: StartLog = no_log) -> Trained:
    """Train what these overrides name, as `--multirun` does.

    All that can be known beforehand is composed and checked before anything is written. UserError for a
    mistake, Stopped after a signal. Runs that fail do not raise: `failed` has them.
    """
    check_mode(composer.read(overrides), multirun=True)
    while True:
        composer.fixed.pop(_FOLDER, None)
        config = composer.swept(overrides)
        node = plain(config.hydra, resolve=False)
        check_hydra(node)
        with resolving(config):
            given = Path(str(config.hydra.sweep.dir)).expanduser()
        folder, is_new = output_folder(str(node["sweep"]["dir"]), given)
        composer.fixed[_FOLDER] = str(folder)
        composer.forget()
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(folder)
        with surroundings(node):
            trained = _train(composer, config, folder, is_new, start_log)
        if trained is not None:
            return trained


def _train(
    composer: Composer, config: DictConfig, folder: Path, is_new: bool, start_log: StartLog
) -> Trained | None:
    """Train a sweep in this folder; None if that was to be new and is taken by now."""
    with resolving(config):
        launches, sweeps = plain(config.hydra.launcher), plain(config.hydra.sweeper)
    trains = (
        foreign.ForeignLauncher(composer, config)
        if _is_foreign(launches)
        else launcher.make(launches, "hydra.launcher")
    )
    chooses = foreign.ForeignSweeper(config) if _is_foreign(sweeps) else _sweeper(sweeps)
    if trains.detach and not chooses.detaches:
        raise ConfigError(
            "hydra.launcher.detach: a search needs the results of its trials to choose the next ones; "
            f"leave it false with hydra/sweeper={config.hydra.runtime.choices['hydra/sweeper']}."
        )
    arguments = _task_overrides(config)
    sweep = Sweep(
        composer, folder, trains, launches, plain(config, resolve=False), Jobs(composer, trains.check)
    )
    check_writable(folder)
    runtime = {**plain(config.hydra.runtime, resolve=False), "output_dir": str(folder.absolute())}
    sweep.check(chooses.foreseen(arguments, composer))
    with locked(folder, is_new) as is_ours:
        if not is_ours:
            return None
        start_log({**plain(config.hydra, resolve=False), "runtime": runtime})
        sweep.save_config()
        chooses.sweep(arguments, sweep)
    return Trained(folder, sweep.results, trains.detach)


def _sweeper(node: Mapping[str, Any]) -> Sweeper:
    """The sweeper that a node describes; ConfigError if it describes none."""
    schema.check(node, "hydra.sweeper")
    target = schema.locate(node["_target_"])
    if not (inspect.isclass(target) and issubclass(target, Sweeper)):
        raise ConfigError(
            f"hydra.sweeper._target_: {node['_target_']} is not a subclass of {Sweeper.__name__}."
        )
    made: Sweeper = target(**{key: value for key, value in node.items() if not key.startswith("_")})
    return made


def _is_foreign(node: Mapping[str, Any]) -> bool:
    """Whether this is a plugin that Hydra finds by itself: its own, or an installed one."""
    return str(node.get("_target_")).startswith(("hydra._internal.core_plugins.", "hydra_plugins."))


def _task_overrides(config: DictConfig) -> list[str]:
    """What was typed for the sweep, but for Hydra's own keys; ${...} stays as it is."""
    overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return [str(text) for text in overrides]
