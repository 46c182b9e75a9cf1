"""`hydra/sweeper=grid`: all combinations of the values given, as one batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from continual.cli import grammar
from continual.cli.composing import Composer
from continual.cli.sweep import Sweep, Sweeper
from continual.errors import ConfigError


class GridSweeper(Sweeper):
    """Trains a run for each combination of values.

    `params` are values besides those on the command line; `optional` are values of keys that only some of the
    chosen options have, such as one agent's own: runs of the others are not multiplied by them.
    """

    detaches = True

    def __init__(self, params: dict[str, Any] | None = None, optional: dict[str, Any] | None = None) -> None:
        self._params, self._optional = dict(params or {}), dict(optional or {})

    def foreseen(self, arguments: Sequence[str], composer: Composer) -> list[list[str]]:
        """See Sweeper: all jobs."""
        jobs = grammar.grid(composer.read([*grammar.in_words(self._params.items()), *arguments]))
        if not self._optional:
            return jobs
        extra = {
            one.key_or_group: grammar.texts(one)
            for one in composer.read(grammar.in_words(_as_text(self._optional).items()))
        }
        used: set[str] = set()
        with composer.started():
            for key, texts in extra.items():
                longer = []
                for job in jobs:
                    has = composer.has(job, key)
                    used |= {key} if has else set()
                    longer += [[*job, text] for text in texts] if has else [job]
                jobs = longer
        for key in extra.keys() - used:
            raise ConfigError(f"hydra.sweeper.optional: none of the sweep's configs has {key}.")
        return jobs

    def sweep(self, arguments: Sequence[str], sweep: Sweep) -> None:
        """See Sweeper: one batch."""
        sweep.train(self.foreseen(arguments, sweep.composer), first=0)


def _as_text(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Dotted keys with what is to be typed for them: lists are values to sweep over."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _as_text(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return found
