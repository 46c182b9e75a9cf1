"""The best configurations known of each agent, as options that `experiment=paper` chooses from."""

import functools
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


def register_best(table: Path) -> None:
    """Offer each cell of a table as the config `best/<env>/<agent>_<optimizer>`.

    The table is a YAML of optimizer -> agent -> env -> values, of which `lr` is the optimizer's and the
    others are the agent's. Hydra chooses whole configs only, and a file for each cell would be 80 files.
    """
    ConfigStore.instance().repo["best"] = _options(table, table.stat().st_mtime_ns)


@functools.cache
def _options(table: Path, last_written: int) -> dict[str, Any]:
    """The cells as Hydra stores them, made once: that takes half as long as composing a config."""
    store = ConfigStore.instance()
    store.repo.pop("best", None)  # those of another table: Hydra 1.4 warns of what is stored twice
    cells: dict[str, dict[str, dict[str, dict[str, float]]]]
    cells = OmegaConf.to_container(OmegaConf.load(table))  # type: ignore[assignment]
    for optimizer, agents in cells.items():
        for agent, envs in agents.items():
            for env, values in envs.items():
                numbers = {name: value for name, value in values.items() if name != "lr"}
                node = {"optimizer": {"lr": values["lr"]}, "agent": numbers}
                store.store(group=f"best/{env}", name=f"{agent}_{optimizer}", node=node, package="_global_")
    made: dict[str, Any] = store.repo["best"]
    return made
