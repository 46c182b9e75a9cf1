"""A Hydra callback: what is wrong with a single run is said before Hydra writes its folder."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from continual import training
from continual.errors import UserError
from continual.sweep import jobs


class CheckBeforeRun(Callback):
    """Composes, checks the folder and reads the data; the launcher does the same for a sweep's jobs."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            folder = Path(config.hydra.run.dir)
            run = jobs.replica(config, config.hydra.runtime.choices, folder, folder.name)
            jobs.check_folder(run)
            training.prepare(run.config)
        except UserError as error:
            # Hydra turns a callback's exceptions into warnings, so the process ends here.
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error
