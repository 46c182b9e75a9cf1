"""What conf/reproduce.yaml may say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from continual import schema
from continual.errors import ConfigError

Natural = Annotated[int, Ge(0)]


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


def settings(values: Mapping[str, Any]) -> Settings:
    """The checked settings; ConfigError for a wrong type or value."""
    schema.check({**values, "_target_": f"{__name__}.Settings"}, "reproduce")
    chosen = Settings(**values)
    for name, seeds in (("sweep_seeds", chosen.sweep_seeds), ("seeds", chosen.seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise ConfigError(f"{name}: give one or more seeds, none of them twice.")
    both = set(chosen.seeds) & set(chosen.sweep_seeds)
    if both:
        raise ConfigError(
            f"seeds: {', '.join(map(str, sorted(both)))} is in sweep_seeds as well; "
            "the best configuration has to run with seeds that it was not chosen by."
        )
    return chosen


def named_agents(agents: str | Sequence[str], published: Sequence[str]) -> list[str]:
    """The agents as a list; `published` is what `all` stands for."""
    if agents == "all":
        return list(published)
    return [agents] if isinstance(agents, str) else list(dict.fromkeys(agents))
