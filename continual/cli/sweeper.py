"""What the sweepers behind `--multirun` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OwnSweeper(Sweeper):
    """A sweeper that is set up; how it sweeps is a subclass's matter."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def save_config(self) -> None:
        """Write the sweep's own config into its folder, as Hydra does."""
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")


def in_words(values: Mapping[str, Any]) -> list[str]:
    """Values by key as they are written on the command line."""
    return [f"{key}={value}" for key, value in values.items()]
