"""A Hydra callback: what is wrong with a run or a sweep is said before Hydra writes anything for it."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.plugins.plugin import Plugin
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from continual import building, schema
from continual.cli import jobs, optuna
from continual.cli.grid import GridSweeper
from continual.cli.messages import one_sentence
from continual.cli.plain import plain
from continual.cli.sweeper import in_words
from continual.config import Config, check_here
from continual.errors import ConfigError
from continual.sweep.launcher import SweepLauncher
from continual.tracking.lock import hold


class CheckBeforeRun(Callback):
    """Composes and checks everything, reads the data, and ends the process with 1 if something is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending_the_process():
            folder = Path(config.hydra.run.dir)
            with open_dict(config):
                config.hydra.runtime.output_dir = str(folder.absolute())
            building.prepare(jobs.checked(config, folder, folder.name).config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending_the_process():
            jobs.check_writable(Path(config.hydra.sweep.dir))
            _check_plugins(config)
            loader = GlobalHydra.instance().config_loader()
            trainable = _launchers_check(config.hydra.launcher)
            jobs.of_sweep(loader, config).check(_foreseeable_jobs(config, loader), 0, trainable)
            hold(Path(config.hydra.sweep.dir))


def _check_plugins(config: DictConfig) -> None:
    """The launcher and the sweeper, as far as they are ours, and whether they go together."""
    for name in ("launcher", "sweeper"):
        node = plain(config.hydra[name])
        if str(node.get("_target_")).startswith("continual."):
            schema.check(node, f"hydra.{name}")
    if config.hydra.launcher.get("detach") and not _is_grid(config.hydra.sweeper):
        raise ConfigError(
            "hydra.launcher.detach: a search needs the results of its trials to go on; leave it false with "
            f"hydra/sweeper={config.hydra.runtime.choices['hydra/sweeper']}."
        )


def _launchers_check(node: DictConfig) -> Callable[[Config], None]:
    """What says whether a run can be trained where this launcher trains: other people's do so here."""
    if not str(node.get("_target_")).startswith("continual."):
        return check_here
    launcher: SweepLauncher = instantiate(node)
    return launcher.check


def _foreseeable_jobs(sweep: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """The overrides of a grid's jobs, or of the edges of a search; other sweepers' are not known before."""
    sweeper = sweep.hydra.sweeper
    if not _is_grid(sweeper) and not _is(sweeper, optuna.OptunaSweeper):
        return []
    arguments = [*in_words(sweeper.params or {}), *jobs.overrides_of(sweep)]
    if _is(sweeper, optuna.OptunaSweeper):
        optuna.check_installed()
        search = optuna.Search.of(arguments, loader)
        return [run for values in search.edges() for run in search.runs(values)]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    [grid] = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return grid


def _is_grid(sweeper: DictConfig) -> bool:
    return _is(sweeper, GridSweeper) or _is(sweeper, BasicSweeper)


def _is(node: DictConfig, plugin: type[Plugin]) -> bool:
    return bool(node.get("_target_") == f"{plugin.__module__}.{plugin.__name__}")


@contextmanager
def _ending_the_process() -> Iterator[None]:
    """An error ends the process: Hydra would turn a callback's exception into a warning and go on."""
    try:
        yield
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            traceback.print_exc()
            raise SystemExit(1) from error
        sys.exit(f"error: {sentence}")
