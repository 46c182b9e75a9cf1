"""Hydra's errors, each as one sentence that names the key and what would be right."""

import re

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from continual.schema import suggestion


def one_sentence(error: BaseException) -> str:
    """What is wrong with the command line, and what would be right."""
    unknown = _unknown_key(error)
    if unknown is not None:
        return unknown
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; {suggestion(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as an override; write key=value."
    return re.sub(r"\s+", " ", str(error)).strip()


def _unknown_key(error: BaseException) -> str | None:
    """A key that is not in the config: OmegaConf's error behind Hydra's knows its neighbours."""
    cause = error.__cause__
    if not isinstance(cause, ConfigAttributeError | ConfigKeyError):
        match = re.match(r"Could not override '([^']+)'", str(error))
        return f"{match[1]}: no such key." if match else None
    neighbours = [str(name) for name in cause.parent_node or ()]
    return f"{cause.full_key}: no such key; {suggestion(str(cause.key), neighbours)}"
