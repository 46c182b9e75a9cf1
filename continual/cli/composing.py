"""The configs of a sweep's jobs, composed by Hydra once for each choice of options.

Hydra reads all YAML again for every job, which takes 0.1 s. Jobs that choose the same options differ in
plain values only, and those are set on a copy of what was composed for the first of them.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, open_dict, read_write

from continual.cli.messages import one_sentence
from continual.cli.plain import plain
from continual.errors import ConfigError

# What of Hydra's own node is a job's own.
_OWN = ("job", "overrides", "runtime")


@dataclass(frozen=True)
class Composed:
    """A job as Hydra has composed it: its config with the `hydra` node, until the next one is composed.

    `shared` is what of that node many jobs have in common, as plain values.
    """

    number: int
    overrides: list[str]
    config: DictConfig
    shared: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where its results would go by its number."""
        sweep = self.config.hydra.sweep
        return Path(sweep.dir) / str(sweep.subdir)

    def hydra_node(self) -> dict[str, Any]:
        """Hydra's own node as plain values, its interpolations as they are, as in the file Hydra writes."""
        return {**self.shared, **{name: plain(self.config.hydra[name], resolve=False) for name in _OWN}}


class Composer:
    """Composes the jobs of one sweep."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        self._loader, self._sweep = loader, sweep
        self._parser = OverridesParser.create()
        self._templates: dict[tuple[str, ...], tuple[DictConfig, DictConfig, dict[str, Any]]] = {}
        self._is_group: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str], number: int) -> Composed:
        """The job with these overrides; ConfigError, naming the job, if there is no such config."""
        with naming(number, overrides):
            try:
                config, shared = self._from_template(overrides)
            except Exception:  # Hydra says best what is wrong
                config = self._loader.load_sweep_config(self._sweep, list(overrides))
                shared = plain(config.hydra, resolve=False)
            with read_write(config.hydra), open_dict(config):
                config.hydra.job.id = str(number)
                config.hydra.job.num = number
                composed = Composed(number, list(overrides), config, shared)
                config.hydra.runtime.output_dir = str(composed.folder.absolute())
            return composed

    def _from_template(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        parsed = self._parser.parse_overrides(list(overrides))
        sets = [one for one in parsed if self._sets_a_value(one)]
        key = tuple(text for text, one in zip(overrides, parsed, strict=True) if not self._sets_a_value(one))
        if key not in self._templates:
            template = self._loader.load_sweep_config(self._sweep, list(key))
            hydra = template.hydra
            _content(template).pop("hydra")
            self._templates[key] = template, hydra, plain(hydra, resolve=False)
        template, hydra, shared = self._templates[key]
        # Hydra's own node is the larger part by far. It is not copied: each job in turn has it.
        config = copy.deepcopy(template)
        _content(config)["hydra"] = hydra
        hydra._set_parent(config)
        ConfigLoaderImpl._apply_overrides_to_config(sets, config)
        node = config.hydra
        with read_write(node), open_dict(node):
            node.overrides.task = [
                text for text, one in zip(overrides, parsed, strict=True) if not one.is_hydra_override()
            ]
            dirname = getattr(config_loader_impl, "get_overrides_dirname", None)
            if dirname is not None:  # Hydra 1.4 makes this of the overrides when it is asked for
                names = node.job.config.override_dirname
                node.job.override_dirname = dirname(
                    overrides=[one for one in parsed if not one.is_hydra_override()],
                    kv_sep=names.kv_sep,
                    item_sep=names.item_sep,
                    exclude_keys=names.exclude_keys,
                )
        return config, shared

    def _sets_a_value(self, override: Override) -> bool:
        """Whether this changes no more than the value of a key that is there."""
        key = override.key_or_group
        if key not in self._is_group:
            self._is_group[key] = bool(self._loader.get_group_options(key))
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.is_hydra_override()
            and not self._is_group[key]
        )


def _content(config: DictConfig) -> dict[Any, Any]:
    content = config._content
    assert isinstance(content, dict)
    return content


@contextmanager
def naming(number: int, overrides: Sequence[str]) -> Iterator[None]:
    """Let a user's mistake in here name the job that it is in."""
    try:
        yield
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        raise ConfigError(f"job {number} ({' '.join(overrides)}): {sentence}") from error
