"""The grammar of overrides (`agent=l2_init,base seed=range(3)`), which is Hydra's."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from continual.cli.messages import one_sentence
from continual.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """An override as plain values: one for its key or, with `several`, a list of those to sweep over."""

    key: str
    value: Any
    several: bool


class Grammar:
    """Reads overrides; each text once, because the jobs of a sweep share most of theirs."""

    def __init__(self, loader: ConfigLoader | None = None) -> None:
        """`loader` knows which options a group has, which `glob(...)` asks for."""
        self.loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._read: dict[str, Override] = {}

    def read(self, texts: Iterable[str]) -> list[Override]:
        """These overrides; ConfigError for the first that cannot be read."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Override:
        if text not in self._read:
            try:
                (self._read[text],) = self._parser.parse_overrides([text])
            except HydraException as error:
                raise ConfigError(one_sentence(error)) from error
            if not self._read[text].key_or_group:
                raise ConfigError(f"{text}: there is no key before the =.")
        return self._read[text]


def read_settings(texts: Iterable[str]) -> list[Setting]:
    """Overrides as plain values; ConfigError for one that cannot be read, or that is an interval."""
    return [
        Setting(
            one.get_key_element(),
            _values(one) if one.is_sweep_override() else one.value(),
            one.is_sweep_override(),
        )
        for one in Grammar().read(texts)
    ]


def grid(overrides: Iterable[Override]) -> list[list[str]]:
    """All combinations of the values, the first key varying slowest; each as a job's overrides.

    A later override replaces an earlier one for the same key. ConfigError for an interval, which has no list
    of values.
    """
    values = {one.get_key_element(): texts(one) for one in overrides}
    return [list(job) for job in itertools.product(*values.values())]


def texts(override: Override) -> list[str]:
    """An override for each of the values that this one sweeps over; for a single value, one."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in _checked(override).sweep_string_iterator()]
    if override.is_delete():
        return [str(override.input_line)]
    return [f"{key}={override.get_value_element_as_str()}"]


def in_words(values: Iterable[tuple[str, Any]]) -> list[str]:
    """Values by key as they are written on the command line."""
    return [f"{key}={value}" for key, value in values]


def quoted(text: str) -> str:
    """A text as a value that the grammar takes as it is."""
    return "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + "'"


def dirname(overrides: Sequence[Override], key_value: str, item: str, without: Sequence[str]) -> str:
    """What Hydra names a folder by its overrides (`hydra.job.override_dirname`)."""
    lines = [str(one.input_line) for one in overrides if one.key_or_group not in without]
    return item.join(sorted(lines)).replace("=", key_value)


def _values(override: Override) -> list[Any]:
    found: list[Any] = list(_checked(override).sweep_iterator())
    return [value.text if isinstance(value, QuotedString) else value for value in found]


def _checked(override: Override) -> Override:
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: a grid takes a list or a range of values; "
            "to search in an interval, add hydra/sweeper=optuna."
        )
    return override
