"""What may be said to `scripts/reproduce.py`: the keys of conf/reproduce.yaml, and training's overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt

from continual import schema
from continual.cli.composing import config_folder
from continual.cli.grammar import read_settings
from continual.errors import ConfigError

Natural = Annotated[int, Ge(0)]

# What training calls what is a key of its own here.
_ELSEWHERE = {
    "agent": "agents",
    "env": "problem",
    "seed": "sweep_seeds and seeds",
    "sweep": "grid",
    "hydra.sweep.dir": "dir",
    "hydra.sweep.subdir": "dir",
}


@dataclass(frozen=True)
class Settings:
    """The keys of conf/reproduce.yaml, which says what they mean."""

    problem: str
    optimizer: str
    agents: str | list[str]
    dir: str
    num_tasks: schema.Count | None = None
    sweep_seeds: list[Natural] = field(default_factory=lambda: [0, 1, 2])
    seeds: list[Natural] = field(default_factory=lambda: list(range(3, 13)))
    grid: dict[str, list[Any]] | None = None
    extend: Natural = 0
    overrides: list[str] = field(default_factory=list)
    steps_per_second: Literal["auto"] | Annotated[float, Gt(0)] = "auto"
    dry_run: bool = False


def defaults_file() -> Path:
    """The list of the keys, with what they mean and their defaults."""
    return config_folder() / "reproduce.yaml"


def read(arguments: Sequence[str]) -> Settings:
    """The defaults with these changes, of which those that are no key here are for training.

    Raises ConfigError for an argument that cannot be read, a wrong type or value.
    """
    values: dict[str, Any] = yaml.safe_load(defaults_file().read_text(encoding="utf-8"))
    own = {one.name for one in fields(Settings)}
    lists = {"agents", "sweep_seeds", "seeds"}
    training = []
    for text in arguments:
        if "=" not in text:
            raise ConfigError(f"{text}: give key=value; {defaults_file()} lists the keys.")
        (setting,) = read_settings([text])
        if setting.key not in own:
            training.append(text)
        elif setting.several and setting.key not in lists:
            raise ConfigError(f"{text}: {setting.key} takes one value.")
        else:
            values[setting.key] = setting.value
    given = values["overrides"]
    if isinstance(given, list):
        values["overrides"] = [*given, *training]
    return settings(values)


def settings(values: Mapping[str, Any]) -> Settings:
    """The checked settings; ConfigError for a wrong type or value."""
    schema.check({**values, "_target_": f"{__name__}.Settings"}, "reproduce")
    where = Template(values["dir"]).safe_substitute(problem=values["problem"], optimizer=values["optimizer"])
    chosen = Settings(**{**values, "dir": str(Path(where).expanduser())})
    for name, seeds in (("sweep_seeds", chosen.sweep_seeds), ("seeds", chosen.seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise ConfigError(f"{name}: give one or more seeds, none of them twice.")
    both = set(chosen.seeds) & set(chosen.sweep_seeds)
    if both:
        raise ConfigError(
            f"seeds: {', '.join(map(str, sorted(both)))} is in sweep_seeds as well; "
            "the best configuration has to run with seeds that it was not chosen by."
        )
    for one in read_settings(chosen.overrides):
        key = one.key.lstrip("+~")
        if key in _ELSEWHERE:
            raise ConfigError(f"{key}: give {_ELSEWHERE[key]} instead; {defaults_file()} lists the keys.")
    return chosen


def named_agents(agents: str | Sequence[str], published: Sequence[str]) -> list[str]:
    """The agents as a list; `published` is what `all` stands for."""
    if agents == "all":
        return list(published)
    return [agents] if isinstance(agents, str) else list(dict.fromkeys(agents))
