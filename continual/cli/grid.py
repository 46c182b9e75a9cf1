"""`hydra/sweeper=grid`: all combinations of the values given, as one batch."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn

from continual.cli.sweeper import OwnSweeper, in_words


class GridSweeper(OwnSweeper):
    """Launches a job for each combination of values.

    The jobs are those of Hydra's basic sweeper. That one composes each of them anew to see whether it can be,
    which takes minutes for thousands, and ours are checked before (`continual.cli.checks`).
    """

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self._params = dict(params or {})

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all jobs; raises the error of the first that failed."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*in_words(self._params), *arguments])
        [grid] = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        self.save_config()
        results = self.launcher.launch(grid, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises a failed job's error
        return [results]
