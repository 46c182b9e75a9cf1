"""What this program's own options in `conf/` say, as they stand in their files."""

import functools
from collections.abc import Mapping
from typing import Any

import yaml

from continual.config import config_folder


@functools.cache
def own_option(group: str, name: str) -> Mapping[str, Any]:
    """What an option says, unresolved; {} if there is none."""
    path = config_folder() / group / f"{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content or {}


def options_with(group: str, key: str) -> list[str]:
    """The options of a group that set this key."""
    names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
    return [name for name in names if key in own_option(group, name)]


@functools.cache
def is_group(name: str) -> bool:
    """Whether this is a group of options, such as env/dataset."""
    return (config_folder() / name).is_dir()


def groups_called(name: str) -> list[str]:
    """The groups of that name within others: env/dataset of dataset."""
    return sorted(f"{path.parent.name}/{name}" for path in config_folder().glob(f"*/{name}") if path.is_dir())


def presets() -> list[str]:
    """The options of experiment that lie in folders, as they are chosen."""
    folder = config_folder() / "experiment"
    return sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))
