"""The training entry point: one run, or a sweep with --multirun."""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig

from continual import training
from continual.errors import UserError
from continual.sweep import jobs
from continual.sweep.launcher import PackedLauncher
from continual.sweep.messages import one_sentence
from continual.tracking.progress import Progress

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line, compose and check the config, and train; exits with 1 on a user's mistake."""
    # Hydra then raises its errors instead of printing several lines and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _register_launchers()
    start = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
    try:
        start(run)()
    except UserError as error:
        sys.exit(f"error: {error}")
    except HydraException as error:
        sys.exit(f"error: {one_sentence(error)}")


def run(composed: DictConfig) -> float | None:
    """Train one run; returns its total average online accuracy, None if it diverged."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    replica = jobs.replica(composed, settings.runtime.choices, folder, folder.name)
    outcome = training.outcome_of(replica)
    if outcome is not None:
        log.info("%s holds this run, finished.", folder)
    else:
        with Progress(training.steps(replica)) as progress:
            (outcome,) = training.train([replica], lambda snapshot: progress.update(0, snapshot))
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


def _register_launchers() -> None:
    """Make Hydra accept our launchers, which live in this package and not in `hydra_plugins`.

    Hydra 1.3 also checks the module's name; 1.4 does not.
    """
    Plugins.instance().register(PackedLauncher)
    known = getattr(Plugins, "is_in_toplevel_plugins_module", None)
    if known is not None:
        Plugins.is_in_toplevel_plugins_module = staticmethod(  # type: ignore[method-assign,assignment]
            lambda name: name.startswith("continual.sweep.") or known(name)
        )
