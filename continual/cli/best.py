"""The best configurations known of each agent, as options that `experiment=paper` chooses from."""

from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


def register_best(table: Path) -> None:
    """Offer each cell of a table as the config `best/<env>/<agent>_<optimizer>`.

    The table is a YAML of optimizer -> agent -> env -> values, of which `lr` is the optimizer's and the
    others are the agent's. Hydra chooses whole configs only, and a file for each cell would be 80 files.
    """
    store = ConfigStore.instance()
    store.repo.pop("best", None)  # those of an earlier call: Hydra 1.4 warns of what is stored twice
    cells: dict[str, dict[str, dict[str, dict[str, float]]]]
    cells = OmegaConf.to_container(OmegaConf.load(table))  # type: ignore[assignment]
    for optimizer, agents in cells.items():
        for agent, envs in agents.items():
            for env, values in envs.items():
                numbers = {name: value for name, value in values.items() if name != "lr"}
                node = {"optimizer": {"lr": values["lr"]}, "agent": numbers}
                store.store(group=f"best/{env}", name=f"{agent}_{optimizer}", node=node, package="_global_")
