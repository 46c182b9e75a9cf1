"""The training entry point: one run, or a sweep with --multirun."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig

from continual import config, training
from continual.cli import jobs
from continual.cli.best import register_best
from continual.cli.grid import GridSweeper
from continual.cli.messages import one_sentence
from continual.cli.optuna import OptunaSweeper
from continual.cli.resolvers import register_resolvers
from continual.errors import UserError
from continual.sweep.leaving import leave
from continual.sweep.packed import PackedLauncher
from continual.sweep.slurm import SlurmLauncher
from continual.sweep.stopping import StopSignals
from continual.tracking import run_status
from continual.tracking.lock import release_held
from continual.tracking.progress import Progress

log = logging.getLogger(__name__)


def program() -> None:
    """`main` in a process of its own, which it ends."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            leave(1)
        leave(end.code or 0)
    leave(0)


def main() -> None:
    """Parse the command line, compose and check the config, and train; exits with 1 on a user's mistake."""
    # Lines for the log in a folder on a full disk are lost without a traceback each.
    logging.raiseExceptions = False
    _register_plugins()
    if {"-m", "--multirun"} & set(sys.argv):
        sys.argv[1:] = _left_to_the_jobs(sys.argv[1:])
    try:
        start_hydra(run, "train")
    finally:
        release_held()


def start_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Let Hydra compose conf/<config_name>.yaml for a task; exits with 1 on a user's mistake."""
    # Hydra then raises its errors instead of printing several lines and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_best(config_folder() / "best.yaml")
    register_resolvers()
    start = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    try:
        start(task)()
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        sys.exit(f"error: {sentence}")


def run(composed: DictConfig) -> float | None:
    """Train one run; returns its total average online accuracy, None if it diverged."""
    try:
        return _run(composed)
    except UserError as error:
        # Hydra would print a line of its own about any other exception.
        sys.exit(f"error: {error}")


def _run(composed: DictConfig) -> float | None:
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    replica = jobs.replica(composed, settings.runtime.choices, folder, folder.name)
    outcome = run_status.outcome_of(replica)
    if outcome is not None:
        log.info("%s holds this run, finished.", folder)
    else:
        try:
            with Progress(config.num_steps(replica.config)) as progress, StopSignals() as stop:
                (outcome,) = training.train([replica], lambda snapshot: progress.update(0, snapshot), stop)
        except training.Interrupted:
            raise UserError(
                f"stopped, with a checkpoint written; the same command with hydra.run.dir={folder} goes on."
            ) from None
    total = outcome.total_average_online_accuracy
    log.info(
        "%s; total average online accuracy %s; results in %s",
        outcome.status,
        "none" if total is None else f"{total:.4f}",
        folder,
    )
    return total


def config_folder() -> Path:
    """The folder of the YAML configs: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[1]
    checkout = package.parent / "conf"
    return checkout if (checkout / "train.yaml").exists() else package / "conf"


def _left_to_the_jobs(arguments: list[str]) -> list[str]:
    """The arguments of a sweep, with fixed values of a swept group's keys as sweeps over one value.

    Hydra composes the sweep as a whole too, with each group's default option, and sets fixed values there:
    in `agent=l2,l2_init agent.l2_weight=0.1` it would be an agent without that key.
    """
    overrides = [_parsed(argument) for argument in arguments]
    swept = tuple(
        o.key_or_group.replace("/", ".") + "." for o in overrides if o is not None and o.is_sweep_override()
    )
    return [
        f"{o.get_key_element()}=choice({o.get_value_element_as_str()})"
        if o is not None and o.key_or_group.startswith(swept) and not o.is_sweep_override()
        else argument
        for o, argument in zip(overrides, arguments, strict=True)
    ]


def _parsed(argument: str) -> Override | None:
    """An override that sets a key, or None if it is another one, a flag or a mistake."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return None
    return override if override.type == OverrideType.CHANGE else None


def _register_plugins() -> None:
    """Make Hydra accept our launchers and sweepers, which live in this package, not in `hydra_plugins`.

    Hydra 1.3 also checks the module's name; 1.4 does not.
    """
    for plugin in (PackedLauncher, SlurmLauncher, GridSweeper, OptunaSweeper):
        Plugins.instance().register(plugin)
    known = getattr(Plugins, "is_in_toplevel_plugins_module", None)
    if known is not None:
        Plugins.is_in_toplevel_plugins_module = staticmethod(  # type: ignore[method-assign,assignment]
            lambda name: name.startswith(("continual.sweep.", "continual.cli.")) or known(name)
        )
