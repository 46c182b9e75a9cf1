"""The command line: flags and overrides, in any order."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from continual.errors import ConfigError

# Flags after which Hydra shows something and nothing is trained.
_SHOW = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
_MODE = "hydra.mode="


@dataclass(frozen=True)
class Command:
    """What is asked for.

    Attributes:
        overrides: all that is typed besides flags.
        multirun: whether it is a sweep.
        shows: whether something is shown (help, a config) and nothing trained.
        config_folder, config_name: other configs than the program's own, if given.
        own_folder: the user's folder of configs beside the program's.
    """

    overrides: list[str]
    multirun: bool = False
    shows: bool = False
    version: bool = False
    config_folder: Path | None = None
    config_name: str = "train"
    own_folder: Path | None = None


def read(arguments: Sequence[str]) -> Command:
    """Read a command line; ConfigError if its flags do not go together or are unknown."""
    if any(one.partition("=")[0] in _SHOW for one in arguments):
        return Command(list(arguments), shows=True)
    given = _parser().parse_intermixed_args(list(arguments))
    modes = [one.removeprefix(_MODE).strip("'\"").upper() for one in given.overrides if one.startswith(_MODE)]
    if given.multirun and given.run:
        raise ConfigError("only one of --run and --multirun can be specified.")
    multirun = given.multirun or modes[-1:] == ["MULTIRUN"]
    # What is asked for by a flag is not to be undone by the mode.
    overrides = [
        one for one in given.overrides if not (one.startswith(_MODE) and modes[-1] in ("RUN", "MULTIRUN"))
    ]
    return Command(
        overrides,
        multirun=multirun,
        version=given.version,
        config_folder=given.config_path,
        config_name=given.config_name,
        own_folder=given.config_dir,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        form = "; overrides have no dashes (seed=1)" if message.startswith("unrecognized") else ""
        raise ConfigError(f"{message}{form}; see --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-path", "-cp", type=Path)
    parser.add_argument("--config-name", "-cn", default="train")
    return parser
