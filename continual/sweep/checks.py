"""A Hydra callback: what is wrong with a run or a sweep is said before Hydra writes anything for it."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from continual import schema, training
from continual.sweep import jobs
from continual.sweep.messages import one_sentence
from continual.tracking.lock import hold


class CheckBeforeRun(Callback):
    """Composes and checks everything, reads the data, and ends the process with 1 if something is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending_the_process():
            folder = Path(config.hydra.run.dir)
            with open_dict(config):
                config.hydra.runtime.output_dir = str(folder.absolute())
            training.prepare(jobs.checked(config, folder, folder.name).config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending_the_process():
            jobs.check_writable(Path(config.hydra.sweep.dir))
            _check_launcher(config.hydra.launcher)
            loader = GlobalHydra.instance().config_loader()
            jobs.of_sweep(loader, config).check(_foreseeable_jobs(config), first_number=0)
            hold(Path(config.hydra.sweep.dir))


def _check_launcher(node: DictConfig) -> None:
    if str(node.get("_target_")).startswith("continual."):
        arguments = OmegaConf.to_container(node, resolve=True)
        assert isinstance(arguments, dict)
        schema.check({str(name): value for name, value in arguments.items()}, "hydra.launcher")


def _foreseeable_jobs(sweep: DictConfig) -> list[list[str]]:
    """The overrides of the sweep's jobs: a grid's are known; other sweepers go by results."""
    sweeper = sweep.hydra.sweeper
    if sweeper._target_ != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        return []
    arguments = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*arguments, *jobs.overrides_of(sweep)])
    (grid,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return grid


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
