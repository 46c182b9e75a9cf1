"""From what Hydra composed to a `Replica`, with every check that can be made before anything is written."""

import os
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from continual.config import Replica, check_config, differing_keys, results_part
from continual.errors import ConfigError


def replica(composed: DictConfig, choices: Mapping[str, object], folder: Path, group: str) -> Replica:
    """The run that a composed config describes, whether or not its `hydra` node is still there.

    `choices` are Hydra's (hydra.runtime.choices). ConfigError if the config cannot be run.
    """
    own = OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"])
    try:
        resolved = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    assert isinstance(resolved, dict)
    config = {str(name): node for name, node in resolved.items()}
    check_config(config)
    chosen = {
        name: str(option) for name, option in choices.items() if not name.startswith("hydra/") and option
    }
    return Replica(config, folder, chosen, group)


def check_folder(run: Replica) -> None:
    """ConfigError if the run's folder cannot be written, or holds a run with other results to come."""
    existing = run.folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"the output folder {run.folder} cannot be written; "
            "choose another with hydra.run.dir or hydra.sweep.dir."
        )
    saved = run.folder / ".hydra" / "config.yaml"
    if not saved.exists():
        return
    before = OmegaConf.to_container(OmegaConf.load(saved), resolve=True)
    assert isinstance(before, dict)
    earlier = results_part({str(name): node for name, node in before.items()})
    differing = differing_keys(earlier, results_part(run.config))
    if differing:
        raise ConfigError(
            f"the output folder {run.folder} holds a run whose config differs ({', '.join(differing)}); "
            "choose another folder, or ask for the same config to go on with it."
        )
