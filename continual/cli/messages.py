"""What Hydra, OmegaConf and the YAML parser have to say of a user's mistake, each time as one sentence."""

import re
from collections.abc import Iterator

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from continual.cli.options import groups_called, options_with, own_option, presets
from continual.errors import UserError
from continual.schema import suggestion

# Hydra's own words (the beginning of a message) and what is said in their place.
_REWORDED = {
    r"Ambiguous value for argument '(.+)'": r"\1: several values; sweep over them with -m, "
    "or write [...] around them where a list is one value.",
    r"Sweep parameters '(.+)' requires --multirun": r"\1: several values; sweep over them with -m.",
    r"Config group override must be a string": "a config group takes the name of one of its options.",
    r"Multiple values for (.+?)\. ": r"\1: chosen already; leave out the + to choose another.",
    r"Could not append to config\. An item is already at '(.+?)'": r"\1: is there already; leave out the +.",
    r"Could not delete from config\. '(.+)' does not exist": r"~\1: no such key.",
    r"Could not delete '(.+)'\. No match": r"~\1: is not among the chosen options.",
    r"Could not override '(.+?)'\.\nDid you mean to override (.+?)\?": r"\1: no such key; did you mean \2?",
    r"Could not override '(.+?)'": r"\1: no such key.",
}


def one_sentence(error: BaseException) -> str | None:
    """What is wrong with the command line or a YAML, and what would be right; None if it is neither."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, HydraException):
        return _of_hydra(error)
    if isinstance(error, OmegaConfBaseException):
        return _of_omegaconf(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "a config"
        return f"{where}: this is no valid YAML ({error.problem})."
    return None


def _of_hydra(error: HydraException) -> str:
    cause = error.__cause__
    if isinstance(cause, UserError):  # from an object that Hydra makes, such as a launcher
        return str(cause)
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; {_right_form(str(error.override))}"
    return _of_omegaconf(cause) if isinstance(cause, OmegaConfBaseException) else _plain(error)


def _right_form(text: str) -> str:
    """How to write an override that the grammar cannot read."""
    if "=" not in text.strip("=") or text.endswith(("=", ",")):
        return "write key=value, without spaces around = or after a comma."
    return "write key=value, with quotes around a value that has special characters: key=\"'a value'\"."


def _missing(error: MissingConfigException) -> str:
    name = str(error.missing_cfg_file)
    if error.options is None:
        return f"{name}: there is no such config in the config folders."
    group, _, option = name.rpartition("/")
    if group.startswith("best/"):
        return f"experiment=paper: {option} for env={group.removeprefix('best/')} is not in conf/best.yaml."
    if group.startswith("experiment/"):
        group, option = "experiment", name.removeprefix("experiment/")
    options = [*error.options, *(presets() if group == "experiment" else ())]
    below = [other for other in options if other.startswith(f"{option}/")]
    return f"{group}={option}: no such option; {suggestion(option, below or options)}"


def _of_omegaconf(error: OmegaConfBaseException) -> str:
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and error.parent_node is not None:
        key, place = str(error.key), str(error.full_key).rpartition(".")[0]
        return f"{error.full_key}: no such key; {_right_key(key, place, error.parent_node)}"
    reason = str(error).splitlines()[0].removesuffix(".")
    reason = re.sub(r"\w+ raised while resolving interpolation: ", "", reason).strip('"')
    return f"{error.full_key}: {reason}." if error.full_key else f"{reason}."


def _right_key(name: str, place: str, parent: Container) -> str:
    """What was meant: a key beside it or a group that is spelt alike, the same key elsewhere, or an option
    that has it in this place."""
    nodes = [OmegaConf.to_container(node) for node in (parent, parent._get_root())]
    beside, everything = (node if isinstance(node, dict) else {} for node in nodes)
    possible = [str(key) for key in beside if not str(key).startswith("_") and key != "hydra"]
    keys = suggestion(name, possible)
    if keys.startswith("did you mean"):
        return keys
    paths = list(_paths(everything))
    group = suggestion(name, ["/".join(path) for path in paths]) if "/" in name else ""
    if group.startswith("did you mean"):
        return group
    groups = groups_called(name) if not place else []
    if groups:
        return f"did you mean {' or '.join(groups)}?"
    elsewhere = [".".join(path) for path in paths if path[-1] == name and path[0] != "hydra"]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    having = options_with(place, name)
    if any(own_option(place, option).get("_target_") == beside.get("_target_") for option in having):
        return keys  # the chosen option has it, and it was deleted
    return f"it is a key of {', '.join(f'{place}={option}' for option in having)}." if having else keys


def _paths(node: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of all keys in and below a node."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*above, str(key))
        yield from _paths(value, (*above, str(key)))


def _plain(error: BaseException) -> str:
    """Hydra's message on one line and with a full stop, or what stands in its place."""
    message = str(error)
    for pattern, ours in _REWORDED.items():
        match = re.match(pattern, message)
        if match:
            return match.expand(ours)
    return re.sub(r"\.\s+(?=[A-Z])", "; ", " ".join(message.split())).removesuffix(".") + "."
